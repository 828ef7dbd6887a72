"""FedKD: a shared student and a private teacher teach each other; updates travel compressed.

Wu et al. 2022, "Communication-efficient federated learning via knowledge distillation", Nature
Communications 13:2032 (its mentor and mentee are the teacher and the student here). With outputs
y, hidden states H, the student s and the teacher t of a client:

    L^task_s  = objective(y_s, y_full)                   eq. 1 and 2, as is L^task_t
    L^d       = D(y_s, y_t) / (L^task_s + L^task_t)      adaptive mutual distillation, eq. 3 and 4
    L^h       = D(H_t, W H_s) / (L^task_s + L^task_t)    adaptive hidden loss, eq. 5
    L_s       = L^d + L^h + L^task_s                     eq. 6 and 7, as is L_t

An update travels as the factors of its matrices' singular value decompositions with the fewest
values that keep a share T of the energy (eq. 8), T = T_start + (T_end - T_start) round / rounds
(eq. 9): from each client to the server, and the mean from there to all clients (alg. 1).

The paper classifies. For denoising:

- Cross-entropies become the experiment's objective (mean squared errors by default) and the
  divergences of outputs the MSE between them; H is the bottleneck, its error relative to the
  teacher's mean square. Cross-entropies are of order 1 for a model that knows nothing, errors of
  images are not, and dividing by them would let the two models agree instead of learning. So all
  errors count in units of the input's own by the same measure, MSE(x, y_full) for the MSE, and a
  network that does nothing has the task loss 1; the whole is scaled back by the objective's unit.
- The sum of task losses is a weight, without a gradient: with one, a larger task loss would pay.
  MSE is symmetric and each model learns from its own loss alone, so that one term serves both.
- All tensors with two or more dimensions are compressed, biases are not (``models.low_rank``).
- The teacher has the student's backbone, or a wider one (``teacher_channels``). It never leaves its
  client, and the student is what is evaluated: Yang et al. 2025 count FedKD as a generic method,
  where the paper's own inference is the teacher's.

The bytes received count the last round's mean alone, as if a client had all before it.

Compression is the method's own and no channel (``federation.channel``): a channel sees a
vector without names, and on its way up alone. This needs the matrices, the share of the rounds that
are over, the ranks of every client, and the mean's way down; moving it would take more code, not
less.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import Aggregation, RoundInput, Task
from physfed_ray.models.low_rank import RAW, compress, numbers_of_rank

SMALLEST_LOSS = 1e-12
"""Below it the sum of the task losses no longer raises the weight of the distillation."""


class FedKDSettings(MethodSettings):
    """Keys under ``method:`` of FedKD."""

    energy_start: float = Field(
        0.95,
        gt=0,
        le=1,
        description="share of an update's energy that is sent at the start (T_start of Wu et al.)",
    )
    energy_end: float = Field(
        0.98, gt=0, le=1, description="share of the energy sent in the last round (T_end)"
    )
    teacher_channels: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="feature channels of the private teacher; null: the student's, which are "
        "backbone.channels",
    )


class FedKD(Method):
    """The student is shared and averaged; the teacher stays with its client."""

    name = "fedkd"
    title = "FedKD"
    paper = "Wu et al. 2022, Nature Communications"
    group = "generic"
    Settings = FedKDSettings
    shared = ("encoder", "decoder")
    uploads = ("ranks",)
    compresses = True
    training_only = ("teacher_encoder", "teacher_decoder", "hidden_map")
    settings: FedKDSettings

    def __init__(self, settings: BaseModel, task: Task) -> None:
        super().__init__(settings, task)
        wanted = self.settings.teacher_channels
        self._teacher = task.backbone if wanted is None else task.backbone.with_channels(wanted)

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the student's children, the teacher's, and W between their bottlenecks."""
        task, teacher = self.task, self._teacher
        own, others = task.backbone.feature_channels, teacher.feature_channels
        return {
            **super().children(),
            "teacher_encoder": lambda: teacher.encoder(task.input_mean, task.input_std),
            "teacher_decoder": teacher.decoder,
            "hidden_map": lambda: nn.Conv2d(own, others, 1, bias=False),
        }

    def begin(self, network: nn.Module, round_input: RoundInput) -> dict[str, Tensor]:
        """Return the broadcast values of what is sent compressed, by name."""
        return {name: network.get_parameter(name).detach().clone() for name in self._matrices}

    def loss(
        self, network: nn.Module, batch: Batch, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the student's loss plus the teacher's.

        The parts are the student's by the objective (``mse``), the teacher's (``teacher_mse``),
        and the weighted ``distillation`` and ``hidden``, all on the scale of the objective.
        """
        f, *skips = self.features(network, batch)
        student = self.decode(network, (f, *skips))
        f_t, skips_t = self.encode(network.get_submodule("teacher_encoder"), batch)
        teacher = network.get_submodule("teacher_decoder")(f_t, skips_t)
        mapped = network.get_submodule("hidden_map")(f)
        task_s, parts = self.reconstruction(student, batch)
        task_t, others = self.reconstruction(teacher, batch)
        with torch.no_grad():
            unit, _ = self.reconstruction(batch.low, batch)
            squares = functional.mse_loss(batch.low.float(), batch.full.float())
            weight = unit / (task_s + task_t).clamp_min(SMALLEST_LOSS)
            weight_of_squares = weight * (unit / squares.clamp_min(SMALLEST_LOSS))
        apart = weight_of_squares * functional.mse_loss(student.float(), teacher.float())
        hidden = weight * unit * relative_error(mapped.float(), f_t.float())
        parts |= {f"teacher_{name}": part for name, part in others.items()}
        parts |= {"distillation": apart.detach(), "hidden": hidden.detach()}
        return task_s + task_t + apart + hidden, parts

    @torch.no_grad()
    def finish(
        self, network: nn.Module, round_input: RoundInput, state: dict[str, Tensor], steps: int
    ) -> dict[str, np.ndarray]:
        """Let the student be what the server can rebuild; return the ranks."""
        energy, ranks = self.energy(round_input.round), []
        for name, before in state.items():
            parameter = network.get_parameter(name)
            update, rank = compress(parameter - before, energy)
            if rank != RAW:
                parameter.copy_(before + update)
            ranks.append(rank)
        return {"ranks": np.array(ranks, np.int32)}

    def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return what clients rebuild of the mean, and its ranks."""
        energy = self.energy(aggregation.round)
        vector, ranks = aggregation.mean.copy(), []
        before, after = aggregation.named(aggregation.previous), aggregation.named(vector)
        for name in self._matrices:
            update, rank = compress(torch.from_numpy(after[name] - before[name]), energy)
            if rank != RAW:
                after[name][...] = before[name] + update.numpy()
            ranks.append(rank)
        return vector, {"ranks": np.array(ranks, np.int32)}

    def energy(self, number: int) -> float:
        """Return the threshold T of a round (eq. 9)."""
        start, end = self.settings.energy_start, self.settings.energy_end
        return start + (end - start) * min(1.0, number / self.task.rounds)

    def upload_like(self) -> dict[str, np.ndarray]:
        """Return ranks with which nothing is saved."""
        return {"ranks": np.full(len(self._matrices), RAW, np.int32)}

    def extras_like(self, participants: int) -> dict[str, np.ndarray]:
        """Return ranks with which nothing is saved."""
        return self.upload_like()

    def bytes_up(self, shared: int, upload: Mapping[str, np.ndarray]) -> int:
        """Return the bytes of factors, ranks, and what is not compressed."""
        return self._bytes(shared, upload["ranks"])

    def bytes_down(self, shared: int, extras: Mapping[str, np.ndarray]) -> int:
        """Return the same of the mean; of the whole student where nothing was averaged yet."""
        return self._bytes(shared, extras["ranks"]) if "ranks" in extras else shared

    def _bytes(self, shared: int, ranks: np.ndarray) -> int:
        left_out = sum(
            rows * columns - numbers_of_rank(rows, columns, rank)
            for (rows, columns), rank in zip(self._matrices.values(), ranks.tolist(), strict=True)
        )
        return min(shared, shared - 4 * left_out + ranks.nbytes)

    @cached_property
    def _matrices(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of the shared tensors that are compressed, by name."""
        network = self.build(0)
        return {
            f"{part}.{name}": (len(parameter), parameter[0].numel())
            for part in self.shared
            for name, parameter in network.get_submodule(part).named_parameters()
            if parameter.ndim > 1
        }


def relative_error(f: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of features over the target's mean square, a constant."""
    size = target.detach().square().mean().clamp_min(SMALLEST_LOSS)
    return functional.mse_loss(f, target) / size

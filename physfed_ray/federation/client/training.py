"""Local training of one client in one round."""

import math
import time
import typing
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from physfed_ray.data.dataset import training_batches
from physfed_ray.data.store import ClientData
from physfed_ray.experiment import Training
from physfed_ray.federation.client.optimizer import FlatOptimizer
from physfed_ray.federation.flat import FlatState, flat_network
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Batch, field_of
from physfed_ray.methods.given import ClientInfo, RoundInput
from physfed_ray.seeds import derive_seed, generator


@dataclass(frozen=True)
class ClientResult:
    """What a client reports of its round; tensors travel apart.

    Attributes:
        missing: Why the client did not take part after all, empty when it did.
        losses: Mean over the steps of the loss and its parts.
        uploads: The method's small named arrays for the server.
        kept: Whether the client has a private state now.
        diverged: Whether it is missing because its loss or its update was not finite.
        part: The checksum of the file of its private state, where that was written at once.
    """

    client: str
    missing: str = ""
    losses: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    uploads: dict[str, np.ndarray] = field(default_factory=dict)
    kept: bool = False
    diverged: bool = False
    part: str = ""


def learning_rate(training: Training, round_number: int) -> float:
    """Return the learning rate of a round: linear warm-up, then constant or cosine decay."""
    if round_number <= training.warmup_rounds:
        return training.lr * round_number / (training.warmup_rounds + 1)
    if training.schedule == "constant":
        return training.lr
    span = max(1, training.rounds - training.warmup_rounds)
    progress = (round_number - training.warmup_rounds - 1) / span
    return float(training.lr * 0.5 * (1 + np.cos(np.pi * progress)))


def autocast(device: str, precision: Literal["fp32", "bf16"]) -> AbstractContextManager[object]:
    """Return the autocast context of a precision."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16")


def to_device(batch: Batch, device: str) -> Batch:
    """Move a batch to the device, its images channels-last, without waiting for the device."""

    def move(name: str, tensor: Tensor) -> Tensor:
        there = tensor.to(device, non_blocking=True)
        image = field_of(name).crop == "image"
        return there.to(memory_format=torch.channels_last) if image else there

    return replace(
        batch.each(move),
        g=batch.g.to(device, non_blocking=True),
        origin=batch.origin.to(device, non_blocking=True),
    )


def seed_torch(seed: int, device: str) -> None:
    """Seed the device's generator (``torch.manual_seed`` also visits devices not in use)."""
    torch.default_generator.manual_seed(seed)
    if torch.device(device).type == "cuda":
        torch.cuda.manual_seed(seed)


class Team(typing.Protocol):
    """Processes that train one client together, each on its part of every batch."""

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """Return this process's part of a batch, and its weight in the mean over the batch."""

    def rows(self, count: int) -> tuple[Tensor, float]:
        """Return which of so many images are this process's, and their weight in the mean."""

    def mean(self, values: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
        """Return the mean of scalars over the batch from those of the parts, equal for all."""

    def add_up(self, gradient: Tensor) -> None:
        """Replace a gradient (size,), in place, by the sum of all processes'."""

    def any(self, said: bool) -> bool:
        """Say whether any process says so, the same to all."""


class Alone:
    """A team of one."""

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """See ``Team``."""
        return batch, 1.0

    def rows(self, count: int) -> tuple[Tensor, float]:
        """See ``Team``."""
        return torch.arange(count), 1.0

    def mean(self, values: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
        """See ``Team``."""
        return values

    def add_up(self, gradient: Tensor) -> None:
        """See ``Team``."""

    def any(self, said: bool) -> bool:
        """See ``Team``."""
        return said


ALONE = Alone()


class Train(typing.Protocol):
    """How a host trains a client: ``train_client``, or what does the same elsewhere."""

    def __call__(
        self,
        spec: Spec,
        network: nn.Module,
        states: tuple[FlatState, FlatState],
        optimizer: FlatOptimizer,
        data: ClientData,
        given: RoundInput,
        deadline: float | None,
    ) -> ClientResult:
        """See ``train_client``."""


def train_client(
    spec: Spec,
    network: nn.Module,
    states: tuple[FlatState, FlatState],
    optimizer: FlatOptimizer,
    data: ClientData,
    given: RoundInput,
    deadline: float | None,
    team: Team = ALONE,
) -> ClientResult:
    """Train one client in place, whose shared and private parts are already loaded.

    Args:
        spec: The federation.
        network: The network whose tensors are views of ``states``.
        states: Shared and private flat state.
        optimizer: Over the flat parameters of both.
        data: The client's training data.
        given: What the server broadcast, and which client this is.
        deadline: ``time.monotonic()`` after which the client gives up; None for never.
        team: Who trains with this process; all call this function with the same arguments.

    Returns:
        The result, with a reason in ``missing`` when the client was too slow or its loss or its
        update was not finite.
    """
    client, number = given.client, given.round
    began = time.monotonic()
    seed_torch(derive_seed(spec.seed, number, client.id, "torch"), spec.device)
    batches = _batches(spec, data, generator(spec.seed, number, client.id, "batches"))
    state = spec.method.begin(network, given)
    sums: dict[str, Tensor] = {}
    losses: list[Tensor] = []
    images = 0
    for batch in batches:
        if deadline is not None and team.any(time.monotonic() > deadline):
            return ClientResult(client.id, f"missed the deadline after {len(losses)} batches")
        part, weight = team.part(batch)
        with autocast(spec.device, spec.precision):
            there = spec.method.read(network, to_device(part, spec.device))
            loss, parts = spec.method.loss(network, there, state)
        values = team.mean({"loss": loss.detach(), **parts}, weight)
        for flat in states:
            flat.zero_gradient()
        torch.autograd.backward(loss * weight)
        for flat in states:
            team.add_up(flat.gradient)
        optimizer.step()
        _add(sums, values)
        losses.append(values["loss"])
        images += len(batch.low)
    steps = len(losses)
    if (spoiled := _first_not_finite(losses)) is not None:
        step, value = spoiled
        return ClientResult(
            client.id, f"loss is {value} in round {number}, batch {step}", diverged=True
        )
    if not all(bool(torch.isfinite(flat.vector.sum())) for flat in states):
        return ClientResult(
            client.id, f"update is not finite in round {number}, after batch {steps}", diverged=True
        )
    return ClientResult(
        client.id,
        losses={name: value / steps for name, value in _read(sums).items()},
        steps=steps,
        images=images,
        seconds=time.monotonic() - began,
        uploads=spec.method.finish(network, given, state, steps),
    )


def _add(sums: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Add scalars to sums in float64, where they are: to read one is to wait for the device."""
    for name, value in values.items():
        sums[name] = sums[name] + value.double() if name in sums else value.double()


def _first_not_finite(losses: Sequence[Tensor]) -> tuple[int, float] | None:
    """Return the number of the first step whose loss is not finite, from 1, and that loss.

    Looked for once, after the last step: to look after each would let the device stand idle.
    """
    values = torch.stack(list(losses)).tolist() if losses else []
    return next(((k, v) for k, v in enumerate(values, 1) if not math.isfinite(v)), None)


def _read(sums: dict[str, Tensor]) -> dict[str, float]:
    """Return sums as numbers, all read at once."""
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True)) if sums else {}


def publish_client(spec: Spec, client: ClientInfo, data: ClientData) -> dict[str, np.ndarray]:
    """Return what a client tells the server of its data before the first round."""
    batch = next(iter(_batches(spec, data, generator(spec.seed, client.id, "publish"))))
    return spec.method.publish(batch)


def _batches(spec: Spec, data: ClientData, rng: np.random.Generator) -> Iterator[Batch]:
    training = spec.training
    return training_batches(
        data,
        batch_size=training.batch_size,
        patch=training.patch,
        patches_per_slice=training.patches_per_slice,
        epochs=training.local_epochs,
        rng=rng,
    )


def build_network(
    spec: Spec,
) -> tuple[nn.Module, tuple[FlatState, FlatState], FlatOptimizer]:
    """Return a new network, its shared and private part as flat states, and their optimizer.

    The objective's frozen networks are made as well, which are in neither part.
    """
    network, states = flat_network(spec.method, spec.seed, spec.device)
    spec.method.objective.prepare(spec.device)
    optimizer = FlatOptimizer(spec.training, states, spec.method.learning_rate_scale)
    return network, states, optimizer

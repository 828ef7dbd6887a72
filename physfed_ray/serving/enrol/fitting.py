"""Training of a private part while the shared one stands still; validation chooses the round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from physfed_ray.data.store import ClientData
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.fresh import rescan
from physfed_ray.federation.client.inference import Inference
from physfed_ray.federation.client.optimizer import FlatOptimizer
from physfed_ray.federation.client.training import (
    autocast,
    learning_rate,
    to_device,
    train_client,
)
from physfed_ray.federation.flat import flat_network
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import EXPECTED, Batch
from physfed_ray.methods.given import RoundInput
from physfed_ray.serving.enrol.one_shot import fit_weights, sampling
from physfed_ray.serving.rebuild import fill


@dataclass(frozen=True)
class Fit:
    """A trained private part.

    Attributes:
        private: Its tensors after the chosen round, by name, on the CPU.
        round: The round that validation chose; 0 is the start.
        validation: PSNR on the validation patients from round 0 on, dB.
        stopped: Why it ended early, empty where it did not.
    """

    private: dict[str, Tensor]
    round: int
    validation: tuple[float, ...]
    stopped: str = ""


class Fitting:
    """A network whose shared part is the run's, and whose private part is trained.

    Args:
        spec: Of one client, the new one; its method comes from ``for_newcomer``, its ``training``
            says how many rounds there are at most.
        network_seed: Of the run, from which initial weights follow.
        shared: The run's shared tensors, by name.
        start: The private part at the start; None for initial weights.
        extras: What the server of the run broadcasts beside the shared vector.
        patience: Rounds without a better validation after which training ends.
    """

    def __init__(
        self,
        spec: Spec,
        network_seed: int,
        shared: Mapping[str, Tensor],
        start: Mapping[str, Tensor] | None,
        extras: Mapping[str, np.ndarray],
        patience: int,
    ) -> None:
        self.spec, self._extras, self._patience = spec, extras, patience
        method = spec.method
        self.module, (self._shared, self._private) = flat_network(method, network_seed, spec.device)
        method.objective.prepare(spec.device)
        if self._shared.entries:
            fill(self._shared, shared, "the run's shared part")
        if start is not None:
            fill(self._private, start, "the private part to start from")
        self._start = self._kept()
        for part in method.shared:
            self.module.get_submodule(part).requires_grad_(False)
        self._inference = Inference(method, self.module, spec.device, spec.precision)

    def fit(
        self,
        train: ClientData,
        validation: ClientData,
        tell: Callable[[int, float], None] = lambda number, psnr: None,
    ) -> Fit:
        """Train from the start on some of the patients.

        Args:
            train: Slices to learn from.
            validation: Slices of other patients, which choose the round.
            tell: Receives each round's number and the validation PSNR after it, dB.

        Raises:
            PhysFedError: The method changes its shared part even where it stands still.
        """
        self._load(self._start)
        before = self._shared.vector.clone()
        optimizer = FlatOptimizer(
            self.spec.training, (self._private,), self.spec.method.learning_rate_scale
        )
        found = [self._psnr(validation)]
        best, chosen, stopped = self._start, 0, ""
        for number in range(1, self.spec.training.rounds + 1):
            if missing := self._round(number, optimizer, train):
                stopped = missing
                break
            found.append(self._psnr(validation))
            tell(number, found[-1])
            if found[-1] > found[chosen]:
                best, chosen = self._kept(), number
            elif number - chosen >= self._patience:
                stopped = f"no better validation in {self._patience} rounds"
                break
        if not torch.equal(before, self._shared.vector):
            raise PhysFedError(
                f"{self.spec.method.title} changes its shared part while only the private one is "
                "trained: clients cannot be enrolled under this method"
            )
        self._load(best)
        return Fit(best, chosen, tuple(found), stopped)

    def fit_steps(self, example: Batch, validation: ClientData) -> Fit:
        """Weight the steps of a diffusion network (``one_shot``) after one slice; no rounds.

        Args:
            example: The slice and its full dose.
            validation: Slices of other patients, on which both are measured: equal weights, which
                are the start, and those that were fitted.
        """
        method = self.spec.method
        self._load(self._start)
        found = [self._psnr(validation)]
        self.module.eval()
        with torch.no_grad(), autocast(self.spec.device, self.spec.precision):
            seen = method.read(self.module, to_device(example, self.spec.device))
            (low,) = method.features(self.module, seen)
            images = sampling(method).images(self.module.get_submodule("decoder"), low)
        logits = fit_weights([image.float() for image in images], seen.full)
        self._private.vector.copy_(logits)
        return Fit(self._kept(), 1, (*found, self._psnr(validation)))

    def denoise(self, data: ClientData) -> np.ndarray:
        """Return images denoised by the network as it is, (N, n, n) float32 in [0, 1]."""
        return self._inference.denoise(data)

    def _round(self, number: int, optimizer: FlatOptimizer, train: ClientData) -> str:
        """Make a round; return why it came to nothing, empty where it did not."""
        spec = self.spec
        optimizer.learning_rate = learning_rate(spec.training, number)
        if spec.training.optimizer_state == "fresh":
            optimizer.state.clear()
        self.module.train()
        for part in spec.method.shared:
            self.module.get_submodule(part).eval()
        shared = self._shared.vector.cpu().numpy()
        given = RoundInput(number, spec.clients[0], shared, self._extras)
        states = self._shared, self._private
        data = self._scanned(train, number)
        return train_client(spec, self.module, states, optimizer, data, given, None).missing

    def _scanned(self, train: ClientData, number: int) -> ClientData:
        """Return the slices with the noise of a round, without what only the scanner needs."""
        wanted = self.spec.method.extra_fields
        extra = dict(train.extra)
        if self.spec.noise == "fixed":
            return replace(train, extra={name: extra[name] for name in wanted})
        new = rescan(self.spec, 0, number, train)
        low = new.pop("low")
        return replace(train, low=low, extra={name: new.get(name, extra[name]) for name in wanted})

    def _psnr(self, data: ClientData) -> float:
        """Return the mean PSNR over slices in the experiment's window, dB."""
        error = self.denoise(data).astype(np.float64) - data.full
        squares = np.maximum(np.square(error).mean(axis=(1, 2)), 1e-20)
        return float(np.mean(-10 * np.log10(squares)))

    def _kept(self) -> dict[str, Tensor]:
        return self._private.named(self._private.vector.detach().to("cpu", copy=True))

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        self._private.vector.copy_(self._private.pack(tensors))


def read_fields(spec: Spec) -> tuple[str, ...]:
    """Return the fields of training slices to read beside those of every batch."""
    wanted = spec.method.extra_fields
    return tuple(dict.fromkeys((*wanted, EXPECTED.name))) if spec.noise == "fresh" else wanted

"""Rounds of a federation with seven numbers: by the project, and by hand in float64.

The network is y = d . (u x + b) + e with two channels. What is computed by hand uses neither the
methods nor the network's modules nor torch's optimizers: only the order of the batches is shared.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from physfed_ray.data.dataset import training_batches
from physfed_ray.data.store import read_client_data
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.client.training import ClientResult
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.given import LocalOptimizer
from physfed_ray.models.base import Backbone, NetworkSettings
from physfed_ray.seeds import generator

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of w, x and the full dose."""

OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "adam", "lr": 0.02},
    {"optimizer": "sgd", "lr": 0.05},
    {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
]
every_optimizer = pytest.mark.parametrize(
    "optimizer", OPTIMIZERS, ids=("adam", "sgd", "sgd with momentum")
)


class Encoder(nn.Module):
    """u x + b, (B, 2, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode."""
        return self.layer(x), ()


class Decoder(nn.Module):
    """d . f + e, (B, 1, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 1, 1)

    def forward(self, f: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Decode."""
        image: Tensor = self.layer(f)
        return image


class SevenNumbers(Backbone):
    """u, b, d and e."""

    name = "seven_numbers"
    title = "seven numbers"
    paper = "none"
    stride = 1
    feature_channels = 2
    skips = ()

    def encoder(self, mean: float, std: float) -> nn.Module:
        """See ``Backbone``."""
        return Encoder()

    def decoder(self) -> nn.Module:
        """See ``Backbone``."""
        return Decoder()


class Federation:
    """Three clients with unequal steps: batches of 3 from 3, 4 and 3 slices, three times over."""

    def __init__(
        self,
        make_spec: Callable[..., Spec],
        method: str,
        settings: Mapping[str, Any] | None = None,
        **training: Any,
    ) -> None:
        training = {"batch_size": 3, "local_epochs": 3} | training
        spec = make_spec(method, unseen=0, settings=settings, **training)
        task = replace(
            spec.method.task,
            backbone=SevenNumbers(NetworkSettings()),
            optimizer=LocalOptimizer(spec.training.optimizer, spec.training.momentum),
        )
        self.spec = replace(spec, method=type(spec.method)(spec.method.settings, task))
        self.server, self.host = ParameterServer(self.spec), Host(self.spec)

    @property
    def numbers(self) -> Tensor:
        """The server's seven numbers u, b, d, e: (7,) float64."""
        return torch.from_numpy(self.server.broadcast()[0].astype(np.float64))

    def play(
        self,
        number: int = 1,
        clients: Sequence[int] = (0, 1, 2),
        *,
        base: Tensor | None = None,
        trained: Mapping[int, int] | None = None,
    ) -> list[ClientResult]:
        """Let the project train some of the clients and aggregate.

        Args:
            number: The round.
            clients: Who takes part.
            base: What they start from, other than what the server now has.
            trained: The last round in which a client took part, for those that have.
        """
        jobs = tuple(ClientTurn(c, (trained or {}).get(c, 0)) for c in clients)
        order = Order(number, self.spec.training.lr, (0, 1, 2), jobs, (0,), base is not None)
        start = self.numbers if base is None else base
        results, pieces = self.host.train(order, start.numpy().astype(np.float32), {})
        uploads = {result.client: result.uploads for result in results}
        self.server.aggregate(number, clients, uploads, [], base is not None, pieces)
        return results

    def train_by_hand(
        self, start: Tensor, client: int, loss: Loss, number: int = 1
    ) -> tuple[Tensor, int]:
        """Return a client's numbers after its steps, (7,) float64, and the number of steps."""
        training = self.spec.training
        w, m, v = start.clone(), torch.zeros(7).double(), torch.zeros(7).double()
        k = 0
        for k, (x, full) in enumerate(self._batches(client, number), 1):
            (gradient,) = torch.autograd.grad(loss(w.requires_grad_(), x, full), w)
            w = w.detach()
            if training.optimizer == "sgd":
                m = training.momentum * m + gradient
                w = w - training.lr * m
            else:
                m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
                root = (v / (1 - 0.999**k)).sqrt() + training.adam_eps
                w = w - training.lr * m / (1 - 0.9**k) / root
        return w, k

    def shares(self, clients: Sequence[int], weights: str) -> list[float]:
        """Return the weights p_i of some clients, which sum to 1."""
        slices = [(3, 4, 3)[c] if weights == "samples" else 1 for c in clients]
        return [n / sum(slices) for n in slices]

    def _batches(self, client: int, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        training, path = self.spec.training, self.spec.files[client].train
        assert path is not None
        for batch in training_batches(
            read_client_data(path),
            batch_size=training.batch_size,
            patch=None,
            patches_per_slice=1,
            epochs=training.local_epochs,
            rng=generator(self.spec.seed, number, self.spec.clients[client].id, "batches"),
        ):
            yield batch.low.double(), batch.full.double()


def encode(w: Tensor, x: Tensor) -> Tensor:
    """Return u x + b, (B, 2, h, w), of numbers that begin with u and b."""
    return w[0:2, None, None] * x + w[2:4, None, None]


def squared_error(w: Tensor, x: Tensor, full: Tensor) -> Tensor:
    """Return the mean squared error."""
    y = (w[4:6, None, None] * encode(w, x)).sum(1, keepdim=True) + w[6]
    return ((y - full) ** 2).mean()


def assert_equal(ours: Tensor, by_hand: Tensor) -> None:
    """Compare numbers to 1e-6 of each, and to 1e-6 of the largest."""
    np.testing.assert_allclose(ours.numpy(), by_hand.numpy(), rtol=1e-6, atol=1e-7)


def distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two sets of numbers."""
    return float((one - other).abs().max())

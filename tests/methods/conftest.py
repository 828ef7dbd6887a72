"""A small task, batches for it, and networks away from their start."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method
from physfed_ray.methods.given import ClientInfo, RoundInput, Task
from physfed_ray.methods.registry import get_method
from physfed_ray.models.registry import make_backbone

DIM, CLIENTS, SIZE = 16, 3, 36


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Return a maker of tasks with the given number of tokens."""

    def make(tokens: int = 1, backbone: str = "red_cnn") -> Task:
        return Task(
            image_size=SIZE,
            clients=CLIENTS,
            input_mean=0.3,
            input_std=0.2,
            tokens=tokens,
            dim=DIM,
            embedding_mean=(0.1,) * DIM,
            embedding_std=(0.5,) * DIM,
            backbone=make_backbone(backbone, channels=4),
        )

    return make


@pytest.fixture
def make_method(make_task: Callable[..., Task]) -> Callable[..., Method]:
    """Return a maker of methods with the given settings."""

    def make(name: str, tokens: int = 1, backbone: str = "red_cnn", **settings: object) -> Method:
        method = get_method(name)
        return method(method.Settings(**settings), make_task(tokens, backbone))

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Return a maker of batches of two patches."""

    def make(tokens: int = 1, side: int = 28, seed: int = 0) -> Batch:
        rng = torch.Generator().manual_seed(seed)
        origin = torch.tensor([[0, 3], [SIZE - side, 1]])
        low = torch.rand(2, 1, side, side, generator=rng)
        return Batch(
            low=low,
            full=torch.rand(2, 1, side, side, generator=rng),
            g=torch.rand(7, generator=rng).expand(2, -1),
            embedding=torch.randn(2, tokens, DIM, generator=rng),
            embedding_mask=torch.arange(tokens) < torch.tensor([[tokens], [1]]),
            origin=origin.clamp(0, SIZE - side),
            image_size=SIZE,
            protocol=PRESETS["paper-2"],
            extra={  # of backbones that read more; an untrained one returns the base
                "sigma": torch.full_like(low, 0.02),
                "streaks": torch.full_like(low, 0.01),
                "base": low,
                "smooth": low,
            },
        )

    return make


@pytest.fixture
def begin(make_batch: Callable[..., Batch]) -> Callable[[Method, nn.Module], object]:
    """Return a function that starts a round for client 1 of three."""

    def start(method: Method, network: nn.Module, g: torch.Tensor | None = None) -> object:
        rng = torch.Generator().manual_seed(5)
        protocols = torch.rand(CLIENTS, 7, generator=rng)
        if g is not None:
            protocols[1] = g
        codes = method.codes(network, protocols)
        extras = {} if codes is None else {"codes": codes.numpy()}
        published = [method.publish(make_batch(seed=i)) for i in range(CLIENTS)]
        extras |= {f"published.{k}": v for k, v in method.collect(published).items()}
        client = ClientInfo(1, "c2", PRESETS["paper-2"], 5)
        return method.begin(network, RoundInput(1, client, np.zeros(1, np.float32), extras))

    return start


@pytest.fixture
def shake() -> Callable[[nn.Module], nn.Module]:
    """Return a function that moves every parameter away from its start."""

    def move(network: nn.Module) -> nn.Module:
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return network

    return move


@pytest.fixture
def scan(make_method: Callable[..., Method], shake: Callable) -> Callable[..., tuple]:
    """Return a maker of a SCAN-PhysFed and its network, away from the start."""

    def make(**settings: object) -> tuple[Method, nn.Module]:
        method = make_method("scan_physfed", code_dim=5, hidden_dim=6, **settings)
        return method, shake(method.build(1))

    return make


@pytest.fixture
def scan_parts() -> Callable[..., tuple]:
    """Return a function that computes f, m, alpha, beta, code and skips with the modules alone."""

    def compute(network: nn.Module, batch: Batch) -> tuple:
        f, skips = network.encoder(batch.low)
        maps = network.anatomy_hypernetwork(batch.embedding, batch.embedding_mask)
        whole = functional.interpolate(maps, (16, 16), mode="bilinear")
        code = network.protocol_hypernetwork.code(batch.own_g)
        alpha, beta = network.protocol_hypernetwork.head(code)
        return f, whole, alpha[:, :, None, None], beta[:, :, None, None], code, skips

    return compute

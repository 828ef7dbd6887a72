"""A small task, batches for it, and networks away from their start."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.fields import Batch
from physfed_ray.methods.base import ClientInfo, Method, RoundInput, Task
from physfed_ray.methods.registry import get_method
from physfed_ray.models.registry import BackboneSettings

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
            backbone=BackboneSettings(name=backbone, channels=4),
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
        return Batch(
            low=torch.rand(2, 1, side, side, generator=rng),
            full=torch.rand(2, 1, side, side, generator=rng),
            g=torch.rand(7, generator=rng),
            embedding=torch.randn(2, tokens, DIM, generator=rng),
            embedding_mask=torch.arange(tokens) < torch.tensor([[tokens], [1]]),
            origin=origin.clamp(0, SIZE - side),
            image_size=SIZE,
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

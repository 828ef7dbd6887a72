"""The optimizer over flat parameters does what torch's own classes do, without their import."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from physfed_ray.experiment import Training
from physfed_ray.federation.client.optimizer import FlatOptimizer
from physfed_ray.federation.flat import FlatState

STEPS = 5
SCALE = {"b": 0.1}


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(5, 7), "b": nn.Linear(7, 3)})


def flat(training: Training) -> tuple[FlatState, FlatOptimizer]:
    state = FlatState(network(), ["a", "b"])
    return state, FlatOptimizer(training, [state], SCALE)


def draw(state: FlatState, number: int) -> torch.Tensor:
    """Set and return the gradient of a step."""
    values = torch.randn(state.gradient.shape, generator=torch.Generator().manual_seed(number))
    return state.gradient.copy_(values)


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({}, lambda p, lr: torch.optim.Adam(p, lr=lr, fused=True)),
        ({"adam_eps": 1e-4}, lambda p, lr: torch.optim.Adam(p, lr=lr, eps=1e-4, fused=True)),
        ({"optimizer": "sgd"}, lambda p, lr: torch.optim.SGD(p, lr=lr, fused=True)),
        (
            {"optimizer": "sgd", "momentum": 0.9},
            lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, fused=True),
        ),
    ],
)
def test_a_step_is_that_of_torch_bit_for_bit(
    settings: dict[str, Any], theirs: Callable[..., torch.optim.Optimizer]
) -> None:
    """With a learning rate that changes and factors on it."""
    state, optimizer = flat(Training(**settings))
    other = network()
    groups = [{"params": list(other[name].parameters())} for name in ("a", "b")]
    reference = theirs(groups, 1.0)
    for number in range(STEPS):
        gradient, begin = draw(state, number), 0
        for parameter in other.parameters():
            end = begin + parameter.numel()
            parameter.grad = gradient[begin:end].view_as(parameter).clone()
            begin = end
        optimizer.learning_rate = 0.01 / (number + 1)
        for group, name in zip(reference.param_groups, ("a", "b"), strict=True):
            group["lr"] = 0.01 / (number + 1) * SCALE.get(name, 1.0)
        optimizer.step()
        reference.step()
    expected = torch.cat([p.detach().reshape(-1) for p in other.parameters()])
    assert torch.equal(state.vector, expected)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "momentum": 0.5}])
def test_moments_carry_on_elsewhere_as_copies(settings: dict[str, Any]) -> None:
    (one, here), (other, there) = flat(Training(**settings)), flat(Training(**settings))
    draw(one, 0)
    here.step()
    other.vector.copy_(one.vector)
    there.load(here.moments())
    for state, optimizer in ((other, there), (one, here)):
        draw(state, 1)
        optimizer.step()
    assert torch.equal(one.vector, other.vector)


def test_training_does_not_import_what_compiling_needs() -> None:
    """It takes about as long as importing torch."""
    code = """
import sys, torch
from torch import nn
from physfed_ray.experiment import Training
from physfed_ray.federation.flat import FlatState
from physfed_ray.federation.client.optimizer import FlatOptimizer
state = FlatState(nn.ModuleDict({"a": nn.Linear(5, 7)}), ["a"])
state.zero_gradient()
for name in ("adam", "sgd"):
    FlatOptimizer(Training(optimizer=name), [state], {}).step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

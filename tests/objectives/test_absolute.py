"""The absolute error and its smooth form, by hand."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from physfed_ray.objectives.registry import make_objective

FULL = torch.tensor([[[[1.0, 2.0], [4.0, -1.0]]]])
DENOISED = FULL + torch.tensor([[[[3.0, 0.0], [-3.0, 0.0]]]])


def test_l1_by_hand(target: Callable) -> None:
    loss, parts = make_objective("l1")(DENOISED, target(FULL))
    assert float(loss) == (3 + 0 + 3 + 0) / 4
    assert {name: float(part) for name, part in parts.items()} == {"l1": 1.5}


def test_charbonnier_by_hand(target: Callable) -> None:
    loss, parts = make_objective("charbonnier", eps=4.0)(DENOISED, target(FULL))
    assert float(loss) == (5 + 4 + 5 + 4) / 4
    assert {name: float(part) for name, part in parts.items()} == {"charbonnier": 4.5}


def test_charbonnier_is_a_square_for_small_errors_and_l1_for_large_ones(target: Callable) -> None:
    def gradient(error: float) -> float:
        d = torch.full((1, 1, 1, 1), error, requires_grad=True)
        make_objective("charbonnier", eps=0.01)(d, target(torch.zeros(1, 1, 1, 1)))[0].backward()
        assert d.grad is not None
        return float(d.grad)

    assert gradient(1e-5) == pytest.approx(1e-5 / 0.01, rel=1e-4)
    assert gradient(1.0) == pytest.approx(1.0, rel=1e-3)


def test_eps_must_be_positive() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        make_objective("charbonnier", eps=0.0)

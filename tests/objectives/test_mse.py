"""The mean squared error: by hand, and to the bit what torch computes."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from physfed_ray.objectives.registry import make_objective


def test_by_hand(target: Callable) -> None:
    full = torch.tensor([[[[1.0, 2.0], [1.0, -1.0]]]])
    denoised = torch.tensor([[[[0.0, 2.0], [4.0, 1.0]]]])
    loss, parts = make_objective("mse")(denoised, target(full))
    assert float(loss) == (1 + 0 + 9 + 4) / 4
    assert {name: float(part) for name, part in parts.items()} == {"mse": 3.5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_torchs_to_the_bit_in_float32(target: Callable, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    full, denoised = torch.rand(3, 1, 17, 19), torch.rand(3, 1, 17, 19).to(dtype)
    loss, _ = make_objective()(denoised, target(full))
    assert torch.equal(loss, functional.mse_loss(denoised.float(), full))

"""Operations are counted as torch's own counter counts them."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from physfed_ray.cost.operations import Operations


def test_a_product_of_matrices_by_hand() -> None:
    with Operations() as operations:
        torch.ones(2, 3) @ torch.ones(3, 5)
    assert operations.total == 2 * 2 * 3 * 5


@pytest.mark.parametrize("network", [
    nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 1, 3)),
    nn.Sequential(nn.Flatten(2), nn.Linear(64, 8), nn.MultiheadAttention(8, 2)),
], ids=["convolutions", "attention"])  # fmt: skip
def test_the_count_is_that_of_torch(network: nn.Sequential) -> None:
    def step() -> None:
        x: Tensor = torch.ones(1, 1, 8, 8)
        for layer in network:
            x = layer(x, x, x)[0] if isinstance(layer, nn.MultiheadAttention) else layer(x)
        torch.autograd.backward(x.sum())

    with Operations() as ours:
        step()
    with FlopCounterMode(display=False) as theirs:
        step()
    assert ours.total == theirs.get_total_flops() > 0


def test_counting_does_not_import_what_compiling_needs() -> None:
    script = (
        "import sys, torch\nfrom physfed_ray.cost.operations import Operations\n"
        "with Operations(): torch.nn.Conv2d(1, 1, 3)(torch.ones(1, 1, 8, 8)).sum().backward()\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

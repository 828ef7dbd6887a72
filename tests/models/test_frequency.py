"""Two bands of frequencies: the transform, the masks, and a layer that reads a guide."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import nn
from torch.nn import functional

from physfed_ray.models.frequency import (
    GuidedConv2d,
    adaptive_mask,
    add_guide,
    dct_matrix,
    low_pass,
)
from physfed_ray.models.red_cnn import RedCNNEncoder

CPU = torch.device("cpu")
SIZES = [(1, 1), (8, 8), (13, 20), (36, 7)]


@pytest.mark.parametrize("size", SIZES)
def test_transform_conserves_energy_and_has_the_transpose_for_inverse(size):
    rows, columns = (dct_matrix(n, CPU) for n in size)
    x = torch.randn(2, 3, *size)
    coefficients = rows @ x @ columns.T
    torch.testing.assert_close(coefficients.square().sum(), x.square().sum())
    torch.testing.assert_close(rows.T @ coefficients @ columns, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_low_pass_equals_scipy(size):
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(3, *size)), rng.uniform(0, 1, (3, *size))
    coefficients = dctn(x, axes=(1, 2), norm="ortho")
    expected = idctn(mask * coefficients, axes=(1, 2), norm="ortho")
    found = low_pass(torch.tensor(x, dtype=torch.float32), torch.tensor(mask, dtype=torch.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_everything_or_nothing_passes():
    x = torch.rand(2, 1, 12, 17)
    torch.testing.assert_close(low_pass(x, torch.ones(1)), x)
    assert not low_pass(x, torch.zeros(1)).any()


def test_low_pass_is_not_rounded_by_autocast():
    x, mask = torch.rand(2, 1, 24, 24), torch.ones(24, 24)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(low_pass(x, mask), x)


def distance(height: int, width: int) -> torch.Tensor:
    """Return the distance from frequency 0 of each coefficient, 1 in the opposite corner."""
    d = torch.tensor(
        [[math.hypot(i / height, j / width) for j in range(width)] for i in range(height)]
    )
    return d / d.max()


@pytest.mark.parametrize("size", [(16, 16), (10, 30)])
def test_masks_keep_the_low_frequencies_and_fray_above(size):
    torch.manual_seed(1)
    masks = adaptive_mask(3000, size, (0.43, 0.5), CPU)
    assert masks.shape == (3000, 1, *size)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    d, kept = distance(*size), masks.mean((0, 1))
    assert bool((kept[d < 0.43] == 1).all())
    torch.testing.assert_close(kept[d > 0.5], d[d > 0.5], atol=0.05, rtol=0)
    assert not torch.equal(masks[0], masks[1])


def test_the_radius_is_drawn_between_the_cutoffs():
    torch.manual_seed(1)
    size, d = (40, 40), distance(40, 40)
    shell = (d > 0.29) & (d < 0.31)  # inside the radius for half of the draws, else with chance 0.3
    kept = adaptive_mask(2000, size, (0.2, 0.4), CPU)[:, 0, shell].mean()
    assert float(kept) == pytest.approx(0.5 + 0.5 * 0.3, abs=0.03)


def test_a_generator_of_its_own_leaves_the_global_one():
    before = torch.get_rng_state()
    drawn = [
        adaptive_mask(1, (9, 9), (0.4, 0.5), CPU, torch.Generator().manual_seed(s)) for s in (1, 1)
    ]
    assert torch.equal(*drawn)
    assert torch.equal(before, torch.get_rng_state())


def test_a_guided_layer_adds_what_it_reads_in_the_guide():
    plain = nn.Conv2d(1, 5, 3, stride=2, padding=1)
    guided, x = GuidedConv2d(plain), torch.rand(2, 2, 9, 9)
    of_guide = functional.conv2d(x[:, 1:], guided.guide, None, 2, 1)
    torch.testing.assert_close(guided(x), plain(x[:, :1]) + of_guide)
    assert guided.weight is plain.weight
    assert guided.bias is plain.bias
    assert not torch.equal(guided.guide, guided.weight)


def test_only_the_layer_that_reads_the_image_is_changed():
    torch.manual_seed(0)
    plain = RedCNNEncoder(3, 0.3, 0.2)
    torch.manual_seed(0)
    guided = add_guide(RedCNNEncoder(3, 0.3, 0.2), "layers.0")
    state = guided.state_dict()
    assert state.keys() - plain.state_dict().keys() == {"layers.0.guide"}
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    assert [type(layer) for layer in guided.layers] == [GuidedConv2d] + [nn.Conv2d] * 4


def test_only_a_convolution_can_read_a_guide():
    with pytest.raises(TypeError, match="'layers' is no convolution"):
        add_guide(RedCNNEncoder(3, 0.3, 0.2), "layers")

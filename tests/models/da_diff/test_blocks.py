"""Blocks of DA-Diff: sub-lattices, the identity at the start, where anatomy enters."""

import pytest
import torch

from physfed_ray.models.da_diff.blocks import (
    DACB,
    Anatomy,
    ChannelAttention,
    ConditionedScan,
    ResidualBlock,
    StandardisedConv,
    cut,
    join,
)


def test_an_image_is_cut_into_four_lattices_and_joined_again() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert cut(image)[0, :, :, 0].T.tolist() == [
        [0, 2, 8, 10],  # even rows, even columns: row by row
        [4, 12, 6, 14],  # odd rows, even columns: column by column
        [1, 3, 9, 11],  # even rows, odd columns: row by row
        [5, 13, 7, 15],  # odd rows, odd columns: column by column
    ]
    other = torch.rand(2, 3, 6, 8)
    assert torch.equal(join(cut(other), 6, 8), other)


@pytest.mark.parametrize("where", ["output", "scan"])
def test_a_new_block_is_the_identity_and_a_moved_one_is_not(where: Anatomy) -> None:
    torch.manual_seed(1)
    block, x = DACB(8, 4, 12, 5, where), torch.randn(2, 8, 6, 4)
    told = torch.randn(2, 12), torch.randn(2, 5)
    assert torch.equal(block(x, *told), x)
    torch.nn.init.normal_(block.modulation.weight)
    assert not torch.allclose(block(x, *told), x)


@pytest.mark.parametrize("where", ["output", "scan"])
def test_the_anatomy_changes_the_scan_where_it_is_told_to(where: Anatomy) -> None:
    torch.manual_seed(1)
    scan, x = ConditionedScan(8, 4, 5, where), torch.randn(1, 8, 6, 4)
    difference = scan(x, torch.randn(1, 5)) - scan(x, torch.randn(1, 5))
    assert difference.abs().max() > 1e-4
    uniform = bool(torch.allclose(difference, difference[..., :1, :1].expand_as(x), atol=1e-5))
    assert uniform == (where == "output")  # added after the scan, it is the same everywhere


def test_step_sizes_start_between_their_bounds() -> None:
    steps = torch.nn.functional.softplus(ConditionedScan(8, 4, 5, "output").step_bias)
    assert 1e-3 * 0.999 <= float(steps.min()) <= float(steps.max()) <= 0.1 * 1.001


def test_attention_has_a_head_for_every_32_channels_and_at_least_one() -> None:
    assert [ChannelAttention(c).heads for c in (4, 16, 32, 64, 512)] == [1, 1, 1, 2, 16]


def test_standardised_kernels_do_not_see_a_constant_nor_the_kernels_scale() -> None:
    convolution, x = StandardisedConv(2, 3, 3, bias=False), torch.randn(1, 2, 8, 8)
    before = convolution(x)
    torch.testing.assert_close(convolution(x + 5), before, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        convolution.weight.mul_(7)
    torch.testing.assert_close(convolution(x), before, rtol=1e-2, atol=1e-2)


def test_a_residual_block_of_few_channels_leaves_its_bias_a_gradient() -> None:
    for out in (2, 4, 16):
        block = ResidualBlock(3, out)
        block(torch.randn(1, 3, 4, 4)).square().sum().backward()
        bias = block.convolution.bias
        assert bias is not None
        assert bias.grad is not None
        assert float(bias.grad.abs().max()) > 1e-4

"""The quantizer by hand, and its positions on every grid."""

import pytest
import torch

from physfed_ray.assets.leda.pyramid import (
    grid_positions,
    nearest,
    perplexity,
    places,
    quantize,
    token_counts,
)


def test_the_positions_on_the_papers_grid() -> None:
    assert places(32, 2) == [7, 23]
    assert places(32, 8) == [3, 7, 11, 15, 19, 23, 27, 31]
    assert [len(layer) for layer in grid_positions(32, 32)] == [4, 64, 1024]
    assert grid_positions(32, 32)[0] == [7 * 32 + 7, 7 * 32 + 23, 23 * 32 + 7, 23 * 32 + 23]


@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (1, 1), (2, 3), (7, 7), (9, 20), (8, 1), (13, 32)]
)
def test_every_grid_has_its_layers_each_position_once(height: int, width: int) -> None:
    layers = grid_positions(height, width)
    expected = [min(height, n) * min(width, n) for n in (2, 8)]
    assert [len(layer) for layer in layers] == [*expected, height * width]
    assert layers[2] == list(range(height * width))
    for layer in layers:
        assert sorted(set(layer)) == layer
        assert set(layer) <= set(layers[2])


def test_three_layers_by_hand() -> None:
    # one position, so that all layers have it: z = 0.8 on a line with the words 0, 1 and 2
    table = torch.tensor([[0.0], [1.0], [2.0]])
    found = quantize(torch.tensor([[[[0.8]]]]), table)
    # z_1 = 0.8 -> 1; z_2 = 0.8 + (0.8 - 1) = 0.6 -> 1; z_3 = 0.6 - 0.2 = 0.4 -> 0
    assert [float(layer) for layer in found.layers] == pytest.approx([0.8, 0.6, 0.4])
    assert [int(tokens) for tokens in found.tokens] == [1, 1, 0]
    assert [float(found.average(n)) for n in (1, 2, 3)] == pytest.approx([1, 1, 2 / 3])
    assert float(found.output) == pytest.approx(2 / 3)


def test_what_a_coarse_token_misses_is_handed_on_at_its_positions_alone() -> None:
    z, table = torch.rand(1, 2, 16, 16), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    found = quantize(z, table)
    flat = z.flatten(2).transpose(1, 2)
    first, second, all_ = found.positions
    only_last = sorted(set(all_.tolist()) - set(second.tolist()))
    assert torch.equal(found.layers[2][:, only_last], flat[:, only_last])
    handed = 2 * flat[:, first] - found.embeddings[0]
    at = [second.tolist().index(p) for p in first.tolist()]
    torch.testing.assert_close(found.layers[1][:, at], handed)
    assert found.counts().unique(return_counts=True)[1].tolist() == [192, 60, 4]


def test_nearest_is_the_loop_over_all_rows() -> None:
    z, table = torch.randn(5, 7, 6), torch.randn(11, 6)
    slow = (z[..., None, :] - table).square().sum(dim=-1).argmin(dim=-1)
    assert torch.equal(nearest(z, table), slow)


def test_gradients_pass_straight_through() -> None:
    z = torch.randn(2, 4, 8, 8, requires_grad=True)
    weights = torch.randn(2, 4, 8, 8)
    (quantize(z, torch.randn(9, 4)).output * weights).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, weights)


def test_perplexity_counts_tokens_that_are_equally_often_used() -> None:
    found = quantize(torch.randn(3, 4, 8, 8), torch.randn(9, 4))
    counts = token_counts(found, 9)
    assert int(counts.sum()) == 3 * (4 + 64 + 64)
    assert perplexity(torch.tensor([5, 0, 5, 5, 5])) == pytest.approx(4)
    assert perplexity(torch.tensor([7, 0])) == pytest.approx(1)

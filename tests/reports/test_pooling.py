"""Grouping token states: nothing lost, nothing mixed, nothing from the neighbours."""

import pytest
import torch

from physfed_ray.reports.pooling import pool_tokens


def states(lengths: list[int], padded: int, dim: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random states, with nonsense in the padding, and the mask of the real ones."""
    generator = torch.Generator().manual_seed(sum(lengths))
    hidden = torch.randn((len(lengths), padded, dim), generator=generator)
    mask = torch.arange(padded) < torch.tensor(lengths)[:, None]
    hidden[~mask] = 1e9
    return hidden, mask


def test_five_tokens_in_two_groups():
    hidden = torch.tensor([[[1.0], [2.0], [6.0], [4.0], [8.0], [99.0]]])
    vectors, mask = pool_tokens(hidden, torch.tensor([[1, 1, 1, 1, 1, 0]]), 2)
    assert vectors.tolist() == [[[3.0], [6.0]]]
    assert mask.tolist() == [[1, 1]]


def test_a_short_text_is_padded_and_masked():
    hidden, real = states([2], 4)
    vectors, mask = pool_tokens(hidden, real, 5)
    assert torch.equal(vectors[0, :2], hidden[0, :2])
    assert not vectors[0, 2:].any()
    assert mask.tolist() == [[1, 1, 0, 0, 0]]


def test_one_group_is_the_mean_of_the_real_tokens():
    hidden, real = states([3, 7], 9)
    vectors, mask = pool_tokens(hidden, real, 1)
    for text, length in enumerate((3, 7)):
        assert torch.allclose(vectors[text, 0], hidden[text, :length].mean(0))
    assert mask.tolist() == [[1], [1]]


@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 32])
def test_every_token_counts_once_and_in_order(tokens):
    length = 37
    hidden = torch.eye(length)[None]
    vectors, mask = pool_tokens(hidden, torch.ones(1, length), tokens)
    members = vectors[0] > 0
    sizes = members.sum(1)
    assert members.sum(0).tolist() == [1] * length
    assert sizes.max() - sizes.min() <= 1
    firsts = members.int().argmax(1)
    assert torch.equal(firsts, firsts.sort().values)
    assert torch.allclose(vectors.sum(2), torch.ones(1, tokens))
    assert mask.all()


@pytest.mark.parametrize("tokens", [1, 4])
def test_padding_and_neighbours_change_no_bit(tokens):
    lengths = [1, 9, 4, 0]
    hidden, real = states(lengths, 12)
    together, mask = pool_tokens(hidden, real, tokens)
    for text, length in enumerate(lengths):
        rows, columns = slice(text, text + 1), slice(length)
        alone, own = pool_tokens(hidden[rows, columns], real[rows, columns], tokens)
        assert torch.equal(alone[0], together[text])
        assert torch.equal(own[0], mask[text])
    # Padding on the left, as generation has it.
    left = [torch.cat([torch.zeros_like(t[:, :5]), t], 1) for t in (hidden, real)]
    assert torch.equal(pool_tokens(left[0], left[1], tokens)[0], together)


def test_a_text_without_tokens_still_has_one_vector():
    vectors, mask = pool_tokens(torch.ones(1, 3, 2), torch.zeros(1, 3), 4)
    assert not vectors.any()
    assert mask.tolist() == [[1, 0, 0, 0]]


def test_half_precision_is_averaged_in_single():
    hidden = torch.full((1, 3000, 1), 1.0, dtype=torch.bfloat16)
    hidden[0, 0] = 4.0
    vectors, _ = pool_tokens(hidden, torch.ones(1, 3000), 1)
    assert vectors.dtype == torch.float32
    assert vectors.item() == pytest.approx(1.001, abs=1e-6)

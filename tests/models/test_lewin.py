"""LeWin blocks against loops over the places of a map."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from physfed_ray.models.lewin import LeWinBlock, LeWinStage, WindowAttention, Windows

SIZES = [(8, 8), (16, 24), (12, 20), (5, 3), (20, 7), (1, 1)]


def windows_of(height: int, width: int, shifted: bool) -> Windows:
    return Windows.over(height, width, shifted=shifted, device=torch.device("cpu"))


def shake(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module.double()


def attend_by_loops(attention: WindowAttention, x: Tensor, shift: tuple[int, int]) -> Tensor:
    """Attention of every place (y, x) of a map (h, w, C) to those in the same window.

    Windows lie on the map itself, shifted: no rolling, no padding, no masks.
    """
    height, width, dim = x.shape
    places = list(itertools.product(range(height), range(width)))
    window = {p: tuple((a - s) // 8 for a, s in zip(p, shift, strict=True)) for p in places}
    q, k, v = functional.linear(x, attention.qkv.weight, attention.qkv.bias).chunk(3, -1)
    size = dim // attention.heads
    mixed = torch.zeros_like(x)
    for here, head in itertools.product(places, range(attention.heads)):
        part = slice(head * size, (head + 1) * size)
        there = [p for p in places if window[p] == window[here]]
        apart = [(here[0] - y + 7, here[1] - z + 7) for y, z in there]
        bias = attention.position_bias[[15 * row + column for row, column in apart], head]
        rows, columns = zip(*there, strict=True)
        scores = k[rows, columns][:, part] @ q[here][part] / math.sqrt(size) + bias
        mixed[here][part] = scores.softmax(0) @ v[rows, columns][:, part]
    return functional.linear(mixed, attention.out.weight, attention.out.bias)


@torch.no_grad()
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_block_equals_loops(size, shifted):
    torch.manual_seed(1)
    block = shake(LeWinBlock(4, 2, modulated=True))
    x = torch.randn(2, *size, 4).double()
    shift = tuple(4 if shifted and side > 8 else 0 for side in size)
    tokens = block.norm1(x)
    for y, z in itertools.product(*map(range, size)):
        tokens[:, y, z] += block.modulator[8 * ((y - shift[0]) % 8) + (z - shift[1]) % 8]
    out = x + torch.stack([attend_by_loops(block.attention, t, shift) for t in tokens])
    hidden = functional.gelu(block.leff.widen(block.norm2(out)))
    local = torch.zeros_like(hidden)
    padded = functional.pad(hidden, (0, 0, 1, 1, 1, 1))
    for i, j in itertools.product(range(3), range(3)):
        near = padded[:, i : i + size[0], j : j + size[1]]
        local += near * block.leff.local.weight[:, 0, i, j]
    expected = out + block.leff.narrow(functional.gelu(local + block.leff.local.bias))
    torch.testing.assert_close(block(x, windows_of(*size, shifted)), expected)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_windows_join_to_what_was_cut(size, shifted):
    x, windows = torch.randn(2, *size, 3), windows_of(*size, shifted)
    cut = windows.cut(x)
    assert cut.shape == (2, math.ceil(size[0] / 8) * math.ceil(size[1] / 8), 64, 3)
    assert torch.equal(windows.join(cut), x)


def test_whole_windows_need_no_mask():
    assert windows_of(16, 24, False).mask is None
    assert windows_of(8, 8, True).mask is None
    assert windows_of(16, 8, True).mask is not None
    assert windows_of(16, 10, False).mask is not None


@torch.no_grad()
def test_every_second_block_is_shifted():
    torch.manual_seed(2)
    stage = LeWinStage(4, 1, 3)
    x = torch.randn(1, 4, 16, 16)
    out = x.permute(0, 2, 3, 1)
    for shifted, block in zip((False, True, False), stage.blocks, strict=True):
        out = block(out, windows_of(16, 16, shifted))
    torch.testing.assert_close(stage(x), out.permute(0, 3, 1, 2))


@torch.no_grad()
def test_a_divided_stage_equals_the_whole():
    torch.manual_seed(3)
    whole = LeWinStage(4, 1, 2)
    parts = LeWinStage(4, 1, 1), LeWinStage(4, 1, 1, first=1)
    for part, block in zip(parts, whole.blocks, strict=True):
        part.blocks[0].load_state_dict(block.state_dict())
    x = torch.randn(1, 4, 16, 16)
    assert torch.equal(parts[1](parts[0](x)), whole(x))

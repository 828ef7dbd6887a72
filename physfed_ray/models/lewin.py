"""Locally-enhanced window (LeWin) transformer blocks, what Uformer is made of.

Wang et al. 2022, "Uformer: A general U-shaped transformer for image restoration", CVPR: first
self-attention within windows of 8 x 8 features with a learnt bias per relative position, then a
feed-forward network with a depth-wise convolution (LeFF). Every second block of a stage has its
windows shifted by half a window, as in the authors' public code and in Liu et al. 2021, "Swin
transformer", ICCV.

Maps of features of any size can be cut: padding, which only fills the last windows, is never
attended to. Where a map is no larger than a window, there is nothing to shift to, and the windows
stay (the public code's rule as well). Sides that are multiples of 8 need no padding.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 8
"""Side of a window in features."""

TOKENS = WINDOW**2
"""Features of a window."""

HIDDEN = 4
"""Width of LeFF's hidden layer, times the block's."""

INITIAL_STD = 0.02
"""Deviation of the initial weights of linear layers and position biases (the public code cuts the
normal distribution off at a hundred deviations, which is never)."""


@dataclass(frozen=True)
class Windows:
    """How a map of features is cut into windows.

    Attributes:
        height: Rows of the map.
        width: Its columns.
        shift: Rows and columns by which the windows are shifted.
        mask: (windows, TOKENS, TOKENS) float32, -inf where a token must not attend to another;
            None where every token may attend to all of its window.
    """

    height: int
    width: int
    shift: tuple[int, int]
    mask: Tensor | None

    @classmethod
    def over(cls, height: int, width: int, *, shifted: bool, device: torch.device) -> Self:
        """Return the windows, shifted by half a window or not, over a map of this size."""
        shift = (_shift(height, shifted), _shift(width, shifted))
        plain = cls(height, width, shift, None)
        if not any((*shift, height % WINDOW, width % WINDOW)):
            return plain
        rows, columns = _groups(height, shift[0], device), _groups(width, shift[1], device)
        group = plain._partition((3 * rows[:, None] + columns)[None, :, :, None])[0, :, :, 0]
        apart = group[:, :, None] != group[:, None, :]
        mask = torch.zeros(apart.shape, device=device).masked_fill(apart, -math.inf)
        return cls(height, width, shift, mask)

    def cut(self, x: Tensor) -> Tensor:
        """Return the windows (B, windows, TOKENS, C) of a map (B, height, width, C)."""
        x = functional.pad(x, (0, 0, 0, -self.width % WINDOW, 0, -self.height % WINDOW))
        return self._partition(x.roll((-self.shift[0], -self.shift[1]), (1, 2)))

    def join(self, windows: Tensor) -> Tensor:
        """Return the map (B, height, width, C) of windows (B, windows, TOKENS, C)."""
        down, across = math.ceil(self.height / WINDOW), math.ceil(self.width / WINDOW)
        x = windows.view(len(windows), down, across, WINDOW, WINDOW, -1).transpose(2, 3)
        x = x.reshape(len(windows), down * WINDOW, across * WINDOW, -1)
        return x.roll(self.shift, (1, 2))[:, : self.height, : self.width]

    @staticmethod
    def _partition(x: Tensor) -> Tensor:
        """Return the windows of a map whose sides are multiples of WINDOW."""
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
        return x.transpose(2, 3).reshape(batch, -1, TOKENS, channels)


def _shift(side: int, shifted: bool) -> int:
    return WINDOW // 2 if shifted and side > WINDOW else 0


def _groups(side: int, shift: int, device: torch.device) -> Tensor:
    """Return which places of a padded and rolled axis belong together where a window has several.

    Rolling brings the axis's start behind its end, and padding lies between the two.
    """
    padded = side + -side % WINDOW
    place = torch.arange(padded, device=device) + shift
    return torch.where(place >= padded, 1, torch.where(place >= side, 2, 0))


def _relative_positions() -> Tensor:
    """Return the row of the bias table for every pair of a window's tokens, (TOKENS, TOKENS)."""
    place = torch.arange(WINDOW)
    apart = place[:, None] - place + WINDOW - 1
    rows, columns = apart[:, None, :, None], apart[None, :, None, :]
    return ((2 * WINDOW - 1) * rows + columns).reshape(TOKENS, TOKENS)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a bias per head and relative position.

    Args:
        dim: Width C of a token.
        heads: Attention heads, a divisor of it.
    """

    positions: Tensor

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _linear(dim, 3 * dim)
        self.out = _linear(dim, dim)
        self.position_bias = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, heads))
        nn.init.normal_(self.position_bias, std=INITIAL_STD)
        self.register_buffer("positions", _relative_positions(), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: (B, windows, TOKENS, C).
            mask: See ``Windows``.

        Returns:
            (B, windows, TOKENS, C).
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        # An embedding: unlike that of indexing, its gradient is summed in the same order always.
        bias = functional.embedding(self.positions, self.position_bias).permute(2, 0, 1)
        # The fused kernels take one batch and one head dimension. All windows share the bias, so
        # that they belong to the batch; each has a mask of its own, so that it counts as heads.
        if mask is None:
            q, k, v = qkv.flatten(1, 2)
        else:
            q, k, v = qkv.flatten(2, 3)
            bias = (bias + mask[:, None]).flatten(0, 1)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        mixed = mixed.reshape(*x.shape[:2], self.heads, TOKENS, -1).transpose(2, 3).flatten(3)
        attended: Tensor = self.out(mixed)
        return attended


class LeFF(nn.Module):
    """Linear layer, depth-wise 3x3 convolution, linear layer, with GELUs between them.

    Args:
        dim: Width C of a feature.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = HIDDEN * dim
        self.widen = _linear(dim, hidden)
        self.local = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = _linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, h, w, C) of features (B, h, w, C)."""
        hidden = functional.gelu(self.widen(x)).permute(0, 3, 1, 2)
        narrowed: Tensor = self.narrow(functional.gelu(self.local(hidden)).permute(0, 2, 3, 1))
        return narrowed


class LeWinBlock(nn.Module):
    """Window attention and LeFF, each behind a layer normalisation and beside an identity.

    Args:
        dim: Width C of a feature.
        heads: Attention heads.
        modulated: Add a learnt vector to each place of a window (the multi-scale restoration
            modulator), as the decoder does.
    """

    def __init__(self, dim: int, heads: int, *, modulated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.modulator = nn.Parameter(torch.randn(TOKENS, dim)) if modulated else None
        self.attention = WindowAttention(dim, heads)
        self.leff = LeFF(dim)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Return (B, h, w, C) of features (B, h, w, C)."""
        tokens = windows.cut(self.norm1(x))
        if self.modulator is not None:
            tokens = tokens + self.modulator
        x = x + windows.join(self.attention(tokens, windows.mask))
        out: Tensor = x + self.leff(self.norm2(x))
        return out


class LeWinStage(nn.Module):
    """Blocks at one resolution, whose windows are shifted in every second one.

    Args:
        dim: Width C of a feature.
        heads: Attention heads.
        depth: Number of blocks.
        modulated: See ``LeWinBlock``.
        first: Number of the first block in its stage, where a stage is divided.
    """

    def __init__(
        self, dim: int, heads: int, depth: int, *, modulated: bool = False, first: int = 0
    ) -> None:
        super().__init__()
        self.first = first
        self.blocks = nn.ModuleList(
            LeWinBlock(dim, heads, modulated=modulated) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w) of features (B, C, h, w), both channels-last."""
        size = x.shape[-2:]
        numbers = range(self.first, self.first + len(self.blocks))
        # Blocks share their masks, but calls do not: a kept one could be of another device.
        windows = {
            odd: Windows.over(*size, shifted=odd, device=x.device)
            for odd in {number % 2 == 1 for number in numbers}
        }
        x = x.permute(0, 2, 3, 1)
        for number, block in zip(numbers, self.blocks, strict=True):
            x = block(x, windows[number % 2 == 1])
        return x.permute(0, 3, 1, 2)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    nn.init.zeros_(layer.bias)
    return layer

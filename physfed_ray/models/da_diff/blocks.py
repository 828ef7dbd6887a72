"""Blocks of DA-Diff: convolutions, the conditioned state-space layer, channel attention.

What is where follows the public code of FoundDiff; ``backbone`` says what differs.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.models.da_diff.selective_scan import selective_scan

DIRECTIONS = 4
"""Sequences that an image is cut into."""
Anatomy = Literal["output", "scan"]

SMALLEST_STEP, LARGEST_STEP = 1e-3, 0.1
"""Step sizes dt at the start, where the layer's input is zero."""


class StandardisedConv(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1 (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, h, w)."""
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(variance + 1e-5)
        convolved: Tensor = self._conv_forward(x, weight, self.bias)
        return convolved


class ResidualBlock(nn.Module):
    """Convolution, group normalisation, SiLU, and a shortcut.

    Args:
        channels: Channels of the input.
        out: Those of the output.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.convolution = StandardisedConv(channels, out, 3, padding=1)
        # A group of one channel would take every gradient from the convolution's bias.
        self.norm = nn.GroupNorm(min(8, math.gcd(max(1, out // 2), 8)), out)
        self.shortcut = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, h, w) of (B, channels, h, w)."""
        changed = functional.silu(self.norm(self.convolution(x)))
        shortcut: Tensor = self.shortcut(x)
        return changed + shortcut


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel.

    Args:
        channels: How many.
        affine: Whether it has a scale and a shift of its own.
    """

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def cut(x: Tensor) -> Tensor:
    """Return four sequences of an image, each a quarter of its pixels.

    (Even, even) and (even, odd) rows and columns are read row by row, (odd, even) and (odd, odd)
    column by column, as in the "efficient scan" of Pei et al. 2024, which the code uses.

    Args:
        x: (B, C, h, w), sides even.

    Returns:
        (B, h w / 4, 4, C).
    """
    lattices = (
        x[:, :, 0::2, 0::2], x[:, :, 1::2, 0::2].mT, x[:, :, 0::2, 1::2], x[:, :, 1::2, 1::2].mT
    )  # fmt: skip
    return torch.stack([lattice.flatten(2) for lattice in lattices], 1).permute(0, 3, 1, 2)


def join(sequences: Tensor, height: int, width: int) -> Tensor:
    """Return the image (B, C, h, w) that ``cut`` has cut into (B, h w / 4, 4, C)."""
    batch, _, _, channels = sequences.shape
    h, w = height // 2, width // 2
    parts = sequences.permute(2, 0, 3, 1)
    by_rows = (batch, channels, h, w)
    by_columns = (batch, channels, w, h)
    even = torch.stack((parts[0].reshape(by_rows), parts[2].reshape(by_rows)), -1)
    odd = torch.stack((parts[1].reshape(by_columns).mT, parts[3].reshape(by_columns).mT), -1)
    return torch.stack((even, odd), 3).reshape(batch, channels, height, width)


class ConditionedScan(nn.Module):
    """The selective scan of four sub-lattices (CSSM), which is told the anatomy.

    Args:
        channels: Channels c; within it are 2c.
        states: States N of each channel.
        anatomy_dim: Length of the anatomy embedding e_a.
        anatomy: Where e_a enters: it is added to the output, as in the code, or to the C of the
            scan, y = (C + F) h + D x, as in the paper's figure.
    """

    def __init__(self, channels: int, states: int, anatomy_dim: int, anatomy: Anatomy) -> None:
        super().__init__()
        inner, self.states, self.where = 2 * channels, states, anatomy
        self.rank = math.ceil(channels / 16)
        self.into = nn.Conv2d(channels, 2 * inner, 1, bias=False)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.read = nn.Parameter(
            torch.empty(DIRECTIONS, self.rank + 2 * states, inner).uniform_(-1, 1) / inner**0.5
        )
        self.step = nn.Parameter(
            torch.empty(DIRECTIONS, inner, self.rank).uniform_(-1, 1) / self.rank**0.5
        )
        first = torch.empty(DIRECTIONS, inner)
        first.uniform_(math.log(SMALLEST_STEP), math.log(LARGEST_STEP)).exp_()
        self.step_bias = nn.Parameter(first + torch.log(-torch.expm1(-first)))
        ladder = torch.arange(1, states + 1, dtype=torch.float32).log()
        self.log_decay = nn.Parameter(ladder.expand(DIRECTIONS, inner, -1).clone())
        self.passing = nn.Parameter(torch.ones(DIRECTIONS, inner))
        self.norm = ChannelNorm(inner)
        told = inner if anatomy == "output" else DIRECTIONS * states
        self.anatomy = nn.Linear(anatomy_dim, told)
        self.out = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor, anatomy: Tensor) -> Tensor:
        """Return (B, c, h, w) of features (B, c, h, w), sides even, and e_a (B, anatomy_dim)."""
        features, gate = self.into(x).chunk(2, 1)
        told = self.anatomy(anatomy)
        y = self._scanned(functional.silu(self.depthwise(features)), told)
        y = self.norm(y) * functional.silu(gate)
        if self.where == "output":
            y = y + functional.silu(told)[:, :, None, None]
        out: Tensor = self.out(y)
        return out

    def _scanned(self, features: Tensor, told: Tensor) -> Tensor:
        x = cut(features)
        read = torch.einsum("blkd,krd->blkr", x, self.read)
        rank, b, c = torch.split(read, [self.rank, self.states, self.states], -1)
        if self.where == "scan":
            c = c + told.view(-1, 1, DIRECTIONS, self.states)
        step = torch.einsum("blkr,kdr->blkd", rank, self.step).float() + self.step_bias
        decay = -self.log_decay.exp()
        y = selective_scan(x, functional.softplus(step), decay, b, c, self.passing)
        return join(y, *features.shape[-2:])


class ChannelAttention(nn.Module):
    """Attention among channels (Zamir et al. 2022, Restormer): its cost grows with the pixels.

    Args:
        channels: Channels c; there is one head for every 32, at least one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 32)
        self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1))
        self.into = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.depthwise = nn.Conv2d(
            3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False
        )
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, c, h, w) of (B, c, h, w)."""
        parts = self.depthwise(self.into(x)).chunk(3, 1)
        q, k, v = (
            part.reshape(len(x), self.heads, -1, x.shape[-2] * x.shape[-1]) for part in parts
        )
        q, k = functional.normalize(q.float(), dim=-1), functional.normalize(k.float(), dim=-1)
        weights = (q @ k.mT * self.temperature).softmax(-1)
        out: Tensor = self.out((weights.to(v.dtype) @ v).reshape(x.shape))
        return out


class DACB(nn.Module):
    """The dose- and anatomy-conditioned block: scan and channel attention, each behind a gate.

    Both gates, scales and shifts follow from the condition by a layer that starts at zero (Peebles
    and Xie 2023, adaLN-Zero), so that a new block is the identity.

    Args:
        channels: Channels c.
        states: States of the scan.
        condition: Length of the condition vector.
        anatomy_dim: Length of the anatomy embedding.
        anatomy: Where it enters.
    """

    def __init__(
        self, channels: int, states: int, condition: int, anatomy_dim: int, anatomy: Anatomy
    ) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, affine=False)
        self.scan = ConditionedScan(channels, states, anatomy_dim, anatomy)
        self.attention = ChannelAttention(channels)
        self.modulation = nn.Linear(condition, 6 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, anatomy: Tensor) -> Tensor:
        """Return (B, c, h, w) of features, the condition (B, condition) and e_a."""
        vectors = self.modulation(functional.silu(condition))[:, :, None, None]
        shift, scale, gate, shift_2, scale_2, gate_2 = vectors.chunk(6, 1)
        x = x + gate * self.scan(self.norm(x) * (1 + scale) + shift, anatomy)
        changed: Tensor = x + gate_2 * self.attention(self.norm(x) * (1 + scale_2) + shift_2)
        return changed

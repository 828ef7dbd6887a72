"""The U-Net of DA-Diff, of FoundDiff's public code: it predicts the residual of residual diffusion.

Levels of c, c, 2c, 4c ... channels: a conditioned block and a residual block, their features as the
skip, and half the resolution (not behind the last level); the way back is its mirror image.
"""

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.models.da_diff.blocks import DACB, Anatomy, ResidualBlock

Dose = Literal["prompt", "direct"]

SINUSOID = 64
"""Numbers that tell the time."""
LONGEST_PERIOD = 10_000.0
FIRST_STATES = 4
"""States of the scan at the first level; twice as many at each following one."""
TIME_SCALE = 1000.0
"""The time that the network is told is so many times a_t."""


class Condition(nn.Module):
    """The condition vector of all blocks: the time, and the dose.

    Args:
        dim: Its length.
        dose_dim: Length of the dose embedding e_d; None: a learned constant stands for the dose.
        dose: How e_d enters: ``prompt``, it chooses softly among the numbers of a learned prompt,
            as in the code; ``direct``, without that.
    """

    def __init__(self, dim: int, dose_dim: int | None, dose: Dose) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(SINUSOID, dim), nn.GELU(), nn.Linear(dim, dim))
        direct = dose_dim is not None and dose == "direct"
        self.prompt = None if direct else nn.Parameter(torch.rand(dim))
        self.choice = None if dose_dim is None else nn.Sequential(
            nn.Linear(dose_dim, dim), nn.GELU(), nn.Linear(dim, dim)
        )  # fmt: skip
        self.out = nn.Linear(dim, dim)

    def forward(self, a: Tensor, dose: Tensor | None) -> Tensor:
        """Return (B, dim) of a_t (B,) and e_d (B, dose_dim) or None."""
        time: Tensor = self.time(sinusoid(TIME_SCALE * a))
        told: Tensor = self.out(self._said(len(a), dose))
        return time + told

    def _said(self, images: int, dose: Tensor | None) -> Tensor:
        if self.choice is None or dose is None:
            assert self.prompt is not None
            return self.prompt.expand(images, -1)
        chosen: Tensor = self.choice(dose)
        return chosen if self.prompt is None else chosen.softmax(-1) * self.prompt


def sinusoid(time: Tensor) -> Tensor:
    """Return sines and cosines of times (B,), (B, SINUSOID)."""
    half = SINUSOID // 2
    places = torch.arange(half, device=time.device, dtype=torch.float32)
    angles = time[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * places / (half - 1))
    return torch.cat((angles.sin(), angles.cos()), 1)


class Down(nn.Module):
    """A level on the way down: the conditioned block, the residual block, and the level below.

    Args:
        block: The conditioned block.
        channels: Channels of the level.
        below: Those of the level below.
        last: Whether there is none below, and the resolution stays.
    """

    def __init__(self, block: DACB, channels: int, below: int, last: bool) -> None:
        super().__init__()
        self.block, self.residual = block, ResidualBlock(channels, channels)
        size, stride = (3, 1) if last else (4, 2)
        self.change = nn.Conv2d(channels, below, size, stride=stride, padding=1)

    def forward(self, x: Tensor, condition: Tensor, anatomy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the skip (B, channels, h, w), and the features of the level below."""
        skip: Tensor = self.residual(self.block(x, condition, anatomy))
        return skip, self.change(skip)


class Up(nn.Module):
    """The same level on the way up: skip, residual block, conditioned block, and the one above.

    Args:
        block: The conditioned block.
        channels: Channels of the skip and of the output.
        below: Channels of what comes from below.
        first: Whether there is none above, and the resolution stays.
    """

    def __init__(self, block: DACB, channels: int, below: int, first: bool) -> None:
        super().__init__()
        self.residual, self.block = ResidualBlock(channels + below, below), block
        self.larger = nn.Identity() if first else nn.Upsample(scale_factor=2)
        self.change = nn.Conv2d(below, channels, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor, condition: Tensor, anatomy: Tensor) -> Tensor:
        """Return the features of the level above."""
        joined = self.block(self.residual(torch.cat((x, skip), 1)), condition, anatomy)
        above: Tensor = self.change(self.larger(joined))
        return above


class UNet(nn.Module):
    """Predicts the residual of images of any size.

    Args:
        channels: Channels c of the first level.
        levels: How many levels there are; the lowest has 2^(levels - 1) c channels.
        dose_dim: Length of e_d; None without perception.
        anatomy_dim: Length of e_a.
        anatomy: Where e_a enters.
        dose: How e_d enters.
    """

    def __init__(
        self,
        channels: int,
        levels: int,
        dose_dim: int | None,
        anatomy_dim: int,
        anatomy: Anatomy,
        dose: Dose = "prompt",
    ) -> None:
        super().__init__()
        self.multiple = 2**levels
        """Sides are padded to it: every level's are even, as the scan needs."""
        dim = 4 * channels
        widths = [channels, *(channels * 2**level for level in range(levels))]
        pairs = list(itertools.pairwise(widths))
        states = [FIRST_STATES * 2**level for level in range(levels)]

        def block(width: int, n: int) -> DACB:
            return DACB(width, n, dim, anatomy_dim, anatomy)

        self.condition = Condition(dim, dose_dim, dose)
        self.first = nn.Conv2d(2, channels, 7, padding=3)
        lasts = [False] * (levels - 1) + [True]
        self.down = nn.ModuleList(
            Down(block(here, n), here, below, last)
            for (here, below), n, last in zip(pairs, states, lasts, strict=True)
        )
        lowest = widths[-1]
        self.middle_residual = ResidualBlock(lowest, lowest)
        self.middle = block(lowest, states[-1])
        self.up = nn.ModuleList(
            Up(block(below, n), here, below, level == 0)
            for level, ((here, below), n) in reversed(
                list(enumerate(zip(pairs, states, strict=True)))
            )
        )
        self.last = ResidualBlock(2 * channels, channels)
        self.out = nn.Conv2d(channels, 1, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, low: Tensor, a: Tensor, dose: Tensor | None, anatomy: Tensor
    ) -> Tensor:
        """Return the residual (B, 1, h, w) float32.

        Args:
            x: x_t, (B, 1, h, w) on [-1, 1].
            low: Low-dose images, likewise.
            a: a_t, (B,).
            dose: e_d, (B, dose_dim); None without perception.
            anatomy: e_a, (B, anatomy_dim).
        """
        height, width = x.shape[-2:]
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        both = functional.pad(torch.cat((x, low), 1), padding, mode="replicate")
        condition = self.condition(a, dose)
        first = self.first(both)
        features, skips = first, []
        for down in self.down:
            skip, features = down(features, condition, anatomy)
            skips.append(skip)
        features = self.middle(self.middle_residual(features), condition, anatomy)
        for up in self.up:
            features = up(features, skips.pop(), condition, anatomy)
        predicted: Tensor = self.out(self.last(torch.cat((features, first), 1)))
        return predicted[..., :height, :width].float()

"""CLEAR-Net, the restoration network of CoreDiff.

Gao et al. 2024, "CoreDiff: Contextual error-modulated generalized diffusion model for low-dose CT
denoising and generalization", IEEE Trans. Med. Imaging 43(2): a U-Net of two halvings in the manner
of CBDNet (Guo et al. 2019), whose skips are added, with an embedding of the step at four places and
a modulation of that embedding by the last estimate and the low-dose image. Layers, widths and
places are those of the authors' public code.

Two departures: there is one input channel, because the slices above and below are not known here,
and the last layer starts at zero, so that the network starts as the identity.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

MULTIPLE = 8
"""Sides are filled up to a multiple of it: the modulation halves an image three times."""

CENTRE, SPREAD = 1 / 3, 0.2
"""What is taken from, and divides, an image on the scale of the HU window: water, and about the
standard deviation of a slice, in the window from -1000 to 2000 HU."""

TIME = 32
"""Numbers of a step's embedding, at any width."""

LONGEST = 10_000.0
"""Longest wavelength of that embedding over 2 pi, in steps."""


def standardised(image: Tensor) -> Tensor:
    """Return an image of the HU window, 0 to 1, on the scale of the network's layers."""
    return (image - CENTRE) / SPREAD


class TimeEmbedding(nn.Module):
    """Sines and cosines of a step, then a linear layer, a GELU and another linear layer."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        powers = torch.arange(TIME // 2) / (TIME // 2 - 1)
        self.register_buffer("frequencies", LONGEST**-powers, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(TIME, 4 * TIME), nn.GELU(), nn.Linear(4 * TIME, TIME), nn.GELU()
        )

    def forward(self, t: Tensor) -> Tensor:
        """Embed steps (1,) as (1, 32)."""
        angles = t[:, None].float() * self.frequencies
        embedded: Tensor = self.layers(torch.cat((angles.sin(), angles.cos()), 1))
        return embedded


class Condition(nn.Module):
    """What is added to features at one place, the same at every pixel.

    Args:
        features: Channels of the features.
        channels: Width C of the network.
        modulation: Whether an estimate and the low dose modulate the embedding.
    """

    def __init__(self, features: int, channels: int, modulation: bool) -> None:
        super().__init__()
        self.time = nn.Linear(TIME, features)
        self.adjust = _adjustment(max(1, channels // 2), features) if modulation else None

    def forward(self, time: Tensor, pair: Tensor | None) -> Tensor:
        """Return (1 or B, features, 1, 1).

        Args:
            time: Embedded step, (1, 32).
            pair: Last estimate and low dose, (B, 2, h, w); None: nothing modulates.
        """
        condition: Tensor = self.time(time)[:, :, None, None]
        if pair is None or self.adjust is None:
            return condition
        both: Tensor = self.adjust(pair).mean((2, 3), keepdim=True)
        gamma, beta = both.chunk(2, 1)
        return gamma * condition + beta


def _adjustment(width: int, features: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 2
    for after in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, 2 * features, 1))


def _convolutions(before: int, after: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(count):
        layers += [nn.Conv2d(after if number else before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class ClearNet(nn.Module):
    """The network.

    Args:
        channels: Width C; 64 in the paper.
        modulation: Whether it has the error modulation.
    """

    def __init__(self, channels: int, modulation: bool) -> None:
        super().__init__()
        wide, wider = 2 * channels, 4 * channels
        self.time = TimeEmbedding()
        self.first = _convolutions(1, channels, 2)
        self.second = _convolutions(channels, wide, 3)
        self.bottom = _convolutions(wide, wider, 6)
        self.up_second = nn.ConvTranspose2d(wider, wide, 2, stride=2)
        self.third = _convolutions(wide, wide, 3)
        self.up_first = nn.ConvTranspose2d(wide, channels, 2, stride=2)
        self.fourth = _convolutions(channels, channels, 2)
        self.last = nn.Conv2d(channels, 1, 1)
        self.conditions = nn.ModuleList(
            Condition(features, channels, modulation)
            for features in (channels, wide, wide, channels)
        )
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, pair: Tensor | None = None) -> Tensor:
        """Estimate the full dose.

        Args:
            x: Between full and low dose, (B, 1, h, w) on the scale of the HU window.
            t: Which step of the way that is, (1,); the same for the whole batch.
            pair: Last estimate and low dose, (B, 2, h, w), which modulate; None: no modulation.

        Returns:
            (B, 1, h, w) on the scale of the HU window.
        """
        height, width = x.shape[-2:]
        time = self.time(t)
        seen = None if pair is None else _filled(standardised(pair))
        half, quarter, half_again, whole = (one(time, seen) for one in self.conditions)
        # A single channel is both formats at once, so that channels-last must be asked for here.
        inside = _filled(standardised(x)).contiguous(memory_format=torch.channels_last)
        shallow = self.first(inside)
        deep = self.second(functional.avg_pool2d(shallow, 2) + half)
        out = self.bottom(functional.avg_pool2d(deep, 2) + quarter)
        out = self.third(deep + self.up_second(out) + half_again)
        out = self.fourth(shallow + self.up_first(out) + whole)
        residual: Tensor = self.last(out)
        return _cut(residual, height, width) + x


def _filled(image: Tensor) -> Tensor:
    """Repeat the lower and the right edge until both sides are multiples of ``MULTIPLE``.

    Rows are picked, not padded, here as in ``_cut``: a graph then holds for every size.
    """
    for axis in (-2, -1):
        side = image.shape[axis]
        rows = torch.arange((side + MULTIPLE - 1) // MULTIPLE * MULTIPLE, device=image.device)
        image = image.index_select(axis, rows.clamp(max=side - 1))
    return image


def _cut(image: Tensor, height: int, width: int) -> Tensor:
    """Return the upper left part of an image."""
    for axis, side in ((-2, height), (-1, width)):
        image = image.index_select(axis, torch.arange(side, device=image.device))
    return image

"""The small networks of a surrogate study: plain torch, for images of 32 pixels and more."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 4
"""Of the group normalisations; every width is a multiple of it."""


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(GROUPS, outputs), nn.ReLU()
    )


class UNet(nn.Module):
    """An image to an image: four halvings, one convolution a level, skips.

    Args:
        width: Channels of the first level, a multiple of 4; they double twice more, then stay.
        residual: Add the result to the input, and begin as the identity.
    """

    def __init__(self, width: int, *, residual: bool) -> None:
        super().__init__()
        widths = [width * factor for factor in (1, 2, 4, 8, 8)]
        self.stem = _block(1, widths[0])
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in pairwise(widths))
        ups = zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True)
        self.up = nn.ModuleList(_block(below + level, level) for below, level in ups)
        self.out = nn.Conv2d(widths[0], 1, 3, 1, 1)
        self.residual = residual
        if residual:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 1, n, n) of the same, n a multiple of 16."""
        levels = [self.stem(images)]
        for block in self.down:
            levels.append(block(levels[-1]))
        found = levels.pop()
        for block in self.up:
            skip = levels.pop()
            found = block(torch.cat([functional.interpolate(found, scale_factor=2), skip], dim=1))
        result: Tensor = self.out(found)
        return images + result if self.residual else result


class Discriminator(nn.Module):
    """Says of every part of an image how much it looks like a host's, above 0 or below.

    Args:
        width: Channels of the first level, a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 1, n / 8, n / 8) of (N, 1, n, n)."""
        result: Tensor = self.layers(images)
        return result


class Classifier(nn.Module):
    """An image to one number a class: four halvings, then means over the image.

    Args:
        width: Channels of the first level, a multiple of 4.
        classes: How many there are.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        widths = [width * factor for factor in (1, 2, 4, 8)]
        self.features = nn.Sequential(
            _block(1, widths[0]),
            *(_block(a, b, 2) for a, b in pairwise(widths)),
        )
        self.head = nn.Linear(2 * widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, classes) of (N, 1, n, n)."""
        found: Tensor = self.features(images)
        pooled = torch.cat([found.mean(dim=(2, 3)), found.amax(dim=(2, 3))], dim=1)
        result: Tensor = self.head(pooled)
        return result

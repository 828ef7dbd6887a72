"""Images split in two bands of frequencies by the discrete cosine transform, and networks for them.

The transform is the orthonormal DCT-II of whole images or whole patches, of any size, as products
with its matrix: it conserves energy, and the transposed product undoes it.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


def dct_matrix(n: int, device: torch.device) -> Tensor:
    """Return the matrix of the orthonormal DCT-II, (n, n) float32, a row for each frequency."""
    k = torch.arange(n, dtype=torch.float64, device=device)
    rows = torch.cos(math.pi / n * (k + 0.5) * k[:, None]) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.float()


def low_pass(images: Tensor, mask: Tensor) -> Tensor:
    """Return images with their DCT coefficients multiplied by a mask.

    Args:
        images: (..., h, w) float32.
        mask: To be broadcast over them, row and column 0 are frequency 0.
    """
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (dct_matrix(n, images.device) for n in images.shape[-2:])
        return rows.T @ (mask * (rows @ images @ columns.T)) @ columns


def adaptive_mask(
    count: int,
    size: tuple[int, int],
    cutoff: tuple[float, float],
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw masks of low frequencies, whose border is a random radius and frayed.

    With the distance d of a coefficient from frequency 0, 1 in the opposite corner, a coefficient
    is kept if d <= r, r uniform between the cutoffs, or else with the probability d.

    Args:
        count: Number of masks.
        size: Height and width of the images.
        cutoff: Least and greatest r.
        device: Where the masks are drawn.
        generator: None for torch's global one.

    Returns:
        (count, 1, h, w) float32, 0 or 1.
    """
    row, column = (torch.arange(n, device=device) / n for n in size)
    distance = torch.sqrt((row[:, None].square() + column.square()) / 2)
    distance = distance / distance.max().clamp(min=1e-12)
    least, greatest = cutoff
    draw = torch.rand(count, 1, 1, 1, device=device, generator=generator)
    inside = distance <= least + (greatest - least) * draw
    frayed = torch.rand(count, 1, *size, device=device, generator=generator) < distance
    return (inside | frayed).float()


class GuidedConv2d(nn.Conv2d):
    """The layer that reads the image, made to read a second image, the guide, beside it.

    Args:
        layer: The layer that reads one image; its parameters are taken over. The weight of the
            guide is drawn as a new layer's is.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        form: Any = layer.kernel_size, layer.stride, layer.padding
        super().__init__(1, layer.out_channels, *form)
        self.guide = self.weight
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve an image and its guide, (B, 2, h, w)."""
        both = torch.cat((self.weight, self.guide), 1)
        out: Tensor = self._conv_forward(x, both, self.bias)
        return out


def add_guide(encoder: nn.Module, path: str) -> nn.Module:
    """Give an encoder, in place, a second input channel, the guide, and return it.

    Its skip of the image then has the guide behind it.

    Args:
        encoder: Of a backbone that says where (``Backbone.guide``).
        path: Its convolution that reads the image, which becomes a ``GuidedConv2d``.
    """
    layer = encoder.get_submodule(path)
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"'{path}' is no convolution that could read a guide")
    parent, _, leaf = path.rpartition(".")
    encoder.get_submodule(parent).register_module(leaf, GuidedConv2d(layer))
    return encoder

"""The encoder and decoder of VQGAN, as LEDA sizes them.

P. Esser, R. Rombach, B. Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021.
Z. Chen et al. Low-dose CT Denoising with Language-engaged Dual-space Alignment. 2024 (LEDA).

With ``channels: 64`` and ``multipliers: [1, 1, 2, 2, 4]`` the two have the 5.18 and 8.21 million
parameters of LEDA's code: one residual block a level in the encoder and two in the decoder, and in
the middle of each a block, an attention and a block. (The paper counts 6 residual blocks and 2
attentions in each.)
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.assets.leda.pyramid import Pyramid, quantize

GROUPS = 32
"""Groups of every norm, as in VQGAN; narrow layers have the most that divide their width."""


class Leda(nn.Module):
    """Encoder, codebook and decoder.

    Args:
        channels: Width of the first level.
        multipliers: Width of each level, in units of ``channels``; each but the last halves the
            image.
        table: The codebook, (K, d) float32.
        learned: Whether the codebook is trained; otherwise it is a buffer, which no optimizer sees.
        standardised: Whether features are brought to the codebook's mean and spread by statistics
            of the batch, channel by channel.
        tokens: Number of each row's token in the language model; None where rows have no words.

    Attributes:
        tokens: (K,) int64; empty where there are none.
        table: (K, d).
        factor: Pixels of the image along a side of one position of the latent grid.
    """

    table: Tensor
    tokens: Tensor

    def __init__(
        self,
        channels: int,
        multipliers: Sequence[int],
        table: Tensor,
        *,
        learned: bool = False,
        standardised: bool = False,
        tokens: Tensor | None = None,
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in multipliers]
        self.factor = 2 ** (len(widths) - 1)
        self.encoder = _encoder(channels, widths)
        self.before = nn.Sequential(nn.Conv2d(widths[-1], table.shape[1], 1))
        if standardised:
            self.before.append(Standardised(table))
        self.after = nn.Conv2d(table.shape[1], widths[-1], 1)
        self.decoder = _decoder(channels, widths)
        if learned:
            self.table = nn.Parameter(table.clone())
        else:
            # It is among the constants of the asset, and need not be in its weights again.
            self.register_buffer("table", table.clone(), persistent=False)
        named = torch.zeros(0, dtype=torch.int64) if tokens is None else tokens.clone()
        self.register_buffer("tokens", named, persistent=False)

    @property
    def last_weight(self) -> Tensor:
        """Weights of the decoder's last layer, all of an image's losses reach them."""
        return cast(nn.Conv2d, self.decoder[-1]).weight

    def features(self, images: Tensor) -> Tensor:
        """Return z, what the quantizer sees, (B, d, h / factor, w / factor), rounded up.

        Args:
            images: (B, 1, h, w) of any size, 0 and 1 are the ends of the HU window.
        """
        z: Tensor = self.before(self.encoder(padded(images, self.factor)))
        return z

    def quantize(self, z: Tensor) -> Pyramid:
        """Return z in tokens of the codebook, layer by layer."""
        return quantize(z, self.table)

    def decode(self, q: Tensor, height: int, width: int) -> Tensor:
        """Return the image of token embeddings (B, d, ., .), (B, 1, height, width)."""
        image: Tensor = self.decoder(self.after(q))
        return image[..., :height, :width]

    def forward(self, images: Tensor) -> tuple[Tensor, Pyramid]:
        """Return what is left of images (B, 1, h, w), and their tokens."""
        tokens = self.quantize(self.features(images))
        return self.decode(tokens.output, *images.shape[-2:]), tokens


class Standardised(nn.BatchNorm2d):
    """Features with the mean of the codebook's rows and, in each channel, their spread.

    Without it an untrained encoder makes nearly the same vector of everything, and few tokens are
    ever used (A. Łańcucki et al. Robust Training of Vector Quantized Bottleneck Models. IJCNN 2020,
    for codebooks that are learned).

    Args:
        table: The codebook, (K, d).
    """

    def __init__(self, table: Tensor) -> None:
        super().__init__(table.shape[1])
        spread = (table - table.mean(dim=0)).square().mean().sqrt()
        self.weight.data.copy_(spread.expand(table.shape[1]))
        self.bias.data.copy_(table.mean(dim=0))
        self.requires_grad_(False)


def padded(images: Tensor, factor: int) -> Tensor:
    """Return images whose sides a factor divides: their last rows and columns go on."""
    down, right = (-side % factor for side in images.shape[-2:])
    return (
        functional.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
    )


def norm(channels: int) -> nn.GroupNorm:
    """Return a group norm whose groups divide the width."""
    groups = next(g for g in range(min(GROUPS, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


class Residual(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, 1, 1))
        self.second = nn.Sequential(norm(outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, 1, 1))
        self.around = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, h, w) of (B, inputs, h, w)."""
        y: Tensor = self.around(x) + self.second(self.first(x))
        return y


class Attention(nn.Module):
    """Every position looks at all others, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.look = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, h, w) of the same."""
        query, key, value = self.look(self.norm(x)).flatten(2).chunk(3, dim=1)
        scores = query.transpose(1, 2) @ key / query.shape[1] ** 0.5
        seen = value @ scores.softmax(dim=-1).transpose(1, 2)
        y: Tensor = x + self.out(seen.reshape(x.shape))
        return y


class Halve(nn.Module):
    """A convolution with stride 2, padded on the right and below as in VQGAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, h / 2, w / 2)."""
        y: Tensor = self.convolution(functional.pad(x, (0, 1, 0, 1)))
        return y


class Double(nn.Module):
    """Every pixel becomes four, and a convolution smooths them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, 2 h, 2 w)."""
        y: Tensor = self.convolution(functional.interpolate(x, scale_factor=2.0))
        return y


def _middle(width: int) -> tuple[nn.Module, ...]:
    return Residual(width, width), Attention(width), Residual(width, width)


def _encoder(channels: int, widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, 1, 1)]
    for level, (inputs, outputs) in enumerate(zip([channels, *widths], widths, strict=False)):
        layers.append(Residual(inputs, outputs))
        if level < len(widths) - 1:
            layers.append(Halve(outputs))
    last = widths[-1]
    return nn.Sequential(
        *layers, *_middle(last), norm(last), nn.SiLU(), nn.Conv2d(last, last, 3, 1, 1)
    )


def _decoder(channels: int, widths: list[int]) -> nn.Sequential:
    last = widths[-1]
    layers: list[nn.Module] = [nn.Conv2d(last, last, 3, 1, 1), *_middle(last)]
    inputs = last
    for level, outputs in reversed(list(enumerate(widths))):
        layers += [Residual(inputs, outputs), Residual(outputs, outputs)]
        if level:
            layers.append(Double(outputs))
        inputs = outputs
    return nn.Sequential(*layers, norm(inputs), nn.SiLU(), nn.Conv2d(inputs, 1, 3, 1, 1))


class Eye(nn.Module):
    """What an objective needs of the autoencoder: the way to features and tokens.

    Args:
        whole: The autoencoder.

    Attributes:
        table: The codebook, (K, d), frozen.
    """

    table: Tensor

    def __init__(self, whole: Leda) -> None:
        super().__init__()
        self.factor = whole.factor
        self.encoder, self.before = whole.encoder, whole.before
        self.register_buffer("table", whole.table.detach())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the straight-through average of its tokens, both (B, d, ., .)."""
        z: Tensor = self.before(self.encoder(padded(images, self.factor)))
        return z, quantize(z, self.table).output

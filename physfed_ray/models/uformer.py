"""Uformer, split within its bottleneck.

Wang et al. 2022, "Uformer: A general U-shaped transformer for image restoration", CVPR: LeWin
blocks at five resolutions, from the image's down to a sixteenth of it, with concatenated skips and
the image itself added at the end. Widths, depths and heads of the sizes T, S and B are those of the
paper and of the authors' public code (`Uformer_T`, `Uformer_S`, `Uformer_B`).

The bottleneck has two blocks. The first is the encoder's last, the second the decoder's first: a
modulation of the features between them acts through a normalisation and an attention. Behind both,
it would meet the decoder's transposed convolution, which is linear and could absorb every scale and
shift. The features that travel to another client's decoder have the bottleneck's size wherever in
it the cut is.

Two departures: the last layer starts at zero, and no block is dropped in training (the public code
drops up to one in ten; RED-CNN here has no such regularisation either).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.models.base import Backbone, NetworkSettings
from physfed_ray.models.lewin import LeWinStage

HALVINGS = 4
STRIDE = 1 << HALVINGS


@dataclass(frozen=True)
class UformerSize:
    """A size of the paper.

    Attributes:
        channels: Width C of the embedding.
        depths: Blocks of the four encoder stages, of the bottleneck, and of the four decoder
            stages.
    """

    channels: int
    depths: tuple[int, ...]


SIZES: Mapping[str, UformerSize] = {
    "T": UformerSize(16, (2, 2, 2, 2, 2, 2, 2, 2, 2)),
    "S": UformerSize(32, (2, 2, 2, 2, 2, 2, 2, 2, 2)),
    "B": UformerSize(32, (1, 2, 8, 8, 2, 8, 8, 2, 1)),
}


class UformerSettings(NetworkSettings):
    """Keys under ``backbone:`` for Uformer."""

    size: str = Field("T", description="T, S or B of Wang et al. 2022")
    channels: int = Field(
        SIZES["T"].channels,
        ge=1,
        le=1024,
        description="width of the embedding, by default that of the size: 16, 32, 32",
    )

    @model_validator(mode="before")
    @classmethod
    def _width_of_the_size(cls, given: Any) -> Any:
        size = given.get("size") if isinstance(given, dict) else None
        if not isinstance(size, str) or size not in SIZES:
            return given
        return {"channels": SIZES[size].channels, **given}

    @field_validator("size", mode="before")
    @classmethod
    def _known(cls, size: Any) -> Any:
        if not isinstance(size, str) or size not in SIZES:
            raise ValueError(f"uformer has the sizes {', '.join(SIZES)}: set 'size' to one of them")
        return size


class UformerEncoder(nn.Module):
    """Input projection, four stages each followed by a halving, and the bottleneck's first block.

    Args:
        channels: Width C of the embedding.
        depths: See ``UformerSize``.
        mean: Mean of the training inputs, on the scale of the HU window.
        std: Their standard deviation.
        image_channels: Channels of an image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int,
        depths: tuple[int, ...],
        mean: float = 0.0,
        std: float = 1.0,
        image_channels: int = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std if std > 0 else 1.0), persistent=False)
        widths = [channels << level for level in range(HALVINGS + 1)]
        self.embed = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.stages = nn.ModuleList(
            LeWinStage(width, 1 << level, depths[level])
            for level, width in enumerate(widths[:HALVINGS])
        )
        self.down = nn.ModuleList(
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1) for width in widths[:HALVINGS]
        )
        self.bottleneck = LeWinStage(widths[HALVINGS], STRIDE, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode images.

        The image is continued to the right and downwards, by repeating its edge, to the next
        multiple of 16 pixels. Padding at one side only leaves feature 0 at pixel 0.

        Args:
            x: (B, 1, h, w) float32, 0 and 1 are the ends of the HU window; any size.

        Returns:
            Features (B, 16 C, H, W) with H = ceil(h / 16) and W = ceil(w / 16), and the skips:
            ``x`` itself, and (B, C, 16 H, 16 W), (B, 2 C, 8 H, 8 W), (B, 4 C, 4 H, 4 W) and
            (B, 8 C, 2 H, 2 W).
        """
        height, width = x.shape[-2:]
        standardised = (x - self.mean) / self.std
        padding = (0, -width % STRIDE, 0, -height % STRIDE)
        padded = functional.pad(standardised, padding, mode="replicate")
        # A single channel is both formats at once, so that channels-last must be asked for here.
        out = self.embed(padded).contiguous(memory_format=torch.channels_last)
        out = functional.leaky_relu(out)
        skips = [x]
        for stage, down in zip(self.stages, self.down, strict=True):
            skips.append(stage(out))
            out = down(skips[-1])
        return self.bottleneck(out), tuple(skips)


class UformerDecoder(nn.Module):
    """The bottleneck's second block, four doublings each with a stage, and the output projection.

    The last layer starts at zero: the identity at the start.

    Args:
        channels: Width C of the embedding.
        depths: See ``UformerSize``.
        image_channels: Channels of an image.
    """

    def __init__(self, channels: int, depths: tuple[int, ...], image_channels: int = 1) -> None:
        super().__init__()
        levels = range(HALVINGS - 1, -1, -1)
        # A stage sees what comes from below beside a skip of the same width.
        widths = [2 * channels << level for level in levels]
        self.bottleneck = LeWinStage(widths[0], STRIDE, depths[HALVINGS] - 1, first=1)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(below, width // 2, 2, stride=2)
            for below, width in zip([widths[0], *widths], widths, strict=False)
        )
        self.stages = nn.ModuleList(
            LeWinStage(width, 2 << level, depth, modulated=True)
            for level, width, depth in zip(levels, widths, depths[HALVINGS + 1 :], strict=True)
        )
        self.project = nn.Conv2d(2 * channels, image_channels, 3, padding=1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    def forward(self, f: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Decode features (B, 16 C, ceil(h / 16), ceil(w / 16)) to images (B, 1, h, w)."""
        x, *shallow = skips
        height, width = x.shape[-2:]
        out = self.bottleneck(f)
        for up, stage, skip in zip(self.up, self.stages, reversed(shallow), strict=True):
            out = stage(torch.cat((up(out), skip), 1))
        residual: Tensor = self.project(out)
        return residual[:, :, :height, :width] + x


class Uformer(Backbone):
    """Uformer of the sizes T, S and B; it has no place for batch normalisations."""

    name = "uformer"
    title = "Uformer"
    paper = "Wang et al. 2022, CVPR"
    Settings = UformerSettings
    stride = STRIDE
    guide = "embed"
    no_graph = "which of its features attend to each other follows from the size of the image"
    settings: UformerSettings

    @property
    def label(self) -> str:
        """See ``Backbone``."""
        return f"{self.name} {self.settings.size} with {self.settings.channels} channels"

    @property
    def feature_channels(self) -> int:
        """See ``Backbone``."""
        return STRIDE * self.settings.channels

    @property
    def skips(self) -> tuple[int, ...]:
        """See ``Backbone``."""
        return 0, *(self.settings.channels << level for level in range(HALVINGS))

    def encoder(self, mean: float, std: float) -> nn.Module:
        """See ``Backbone``."""
        return UformerEncoder(self.settings.channels, self._depths, mean, std)

    def decoder(self) -> nn.Module:
        """See ``Backbone``."""
        return UformerDecoder(self.settings.channels, self._depths)

    @property
    def _depths(self) -> tuple[int, ...]:
        return SIZES[self.settings.size].depths

"""RED-CNN that knows its scan: what is left to learn when physics has explained what it can.

This project's own. Of every image a hospital can compute, from the image and its protocol alone,
the standard deviation sigma of its noise (``ct.noise_map``), the streaks a of its few views, and
the image t without both (``ct.base_image``). With y = x - a, and the error that is to be expected
of t,

    e = sqrt(sigma^2 + (0.3 r)^2)          r^2 local mean of a^2

the network reads

    (x - m) / s,  (y - m) / s,  (t - m) / s,  asinh((y - t) / e),  asinh(a / e),  log(e / 30 HU)

and returns t + e net(...): numbers near 1 in every client, whichever its protocol. m and s are the
training images' mean and standard deviation. Nothing is private and nothing is looked up, so that a
protocol that nobody trained on is served as any other.

``noise`` and ``base`` take these parts away, one by one, as controls.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.fields import Batch
from physfed_ray.models.red_cnn import KERNEL, RedCNN, RedCNNDecoder, RedCNNEncoder, RedCNNSettings

CHANNELS = 6
LEFT_OF_STREAKS = 0.3
TYPICAL = 0.01
"""Noise of 30 HU in a window of 3000 HU."""
LEAST = 1e-4
NEIGHBOURHOOD = 9  # pixels


class ScanAwareSettings(RedCNNSettings):
    """Keys under ``backbone:``."""

    noise: Literal["map", "constant"] = Field(
        "map", description="constant: a control that takes the noise for 30 HU everywhere"
    )
    base: Literal["explained", "smooth", "low"] = Field(
        "explained",
        description="what the output begins with; smooth: a control, the total variation of the "
        "image with its streaks in it; low: another, the image itself; neither sees the streaks",
    )


class ScanAwareEncoder(RedCNNEncoder):
    """RED-CNN's encoder over images in units of their expected error.

    Args:
        channels: Feature channels C.
        mean: m.
        std: s.
    """

    def __init__(self, channels: int, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__(channels, mean, std)
        self.layers[0] = nn.Conv2d(CHANNELS, channels, KERNEL)

    def forward(  # type: ignore[override]
        self, x: Tensor, sigma: Tensor, streaks: Tensor, base: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode images.

        Args:
            x: (B, 1, h, w) float32, 0 and 1 are the ends of the HU window; sides above 20.
            sigma: Standard deviation of their noise, same shape and scale.
            streaks: Likewise.
            base: Likewise.

        Returns:
            Features before their activation (B, C, h - 20, w - 20), and the skips: ``base``, the
            error expected of it, and RED-CNN's own two.
        """
        error = expected_error(sigma, streaks)
        y = x - streaks
        seen = torch.cat(
            (
                *((image - self.mean) / self.std for image in (x, y, base)),
                torch.asinh((y - base) / error),
                torch.asinh(streaks / error),
                torch.log(error / TYPICAL),
            ),
            dim=1,
        )
        f, shallow, deep = self.convolve(seen)
        return f, (base, error, shallow, deep)


class ScanAwareDecoder(RedCNNDecoder):
    """RED-CNN's decoder, whose output counts in expected errors: the base at the start."""

    def forward(self, f: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Decode features before their activation, (B, C, h - 20, w - 20), to (B, 1, h, w)."""
        base, error, shallow, deep = skips
        return base + error * self.deconvolve(f, shallow, deep)


def expected_error(sigma: Tensor, streaks: Tensor) -> Tensor:
    """Return e, (B, 1, h, w), of noise and streaks of the same shape and scale."""
    around = functional.avg_pool2d(
        streaks.square(), NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False
    )
    return (sigma.square() + LEFT_OF_STREAKS**2 * around + LEAST**2).sqrt()


class ScanAware(RedCNN):
    """RED-CNN with what physics says of its image."""

    name = "scan_aware"
    title = "Scan-aware RED-CNN"
    paper = "this project"
    Settings = ScanAwareSettings
    fields = ("sigma", "streaks", "base", "smooth")
    start = "base"
    guide = None
    settings: ScanAwareSettings

    @property
    def skips(self) -> tuple[int, ...]:
        """See ``Backbone``."""
        return 0, 0, self.settings.channels, self.settings.channels

    def encoder(self, mean: float, std: float) -> nn.Module:
        """See ``Backbone``."""
        return ScanAwareEncoder(self.settings.channels, mean, std)

    def decoder(self) -> nn.Module:
        """See ``Backbone``."""
        return ScanAwareDecoder(self.settings.channels)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """See ``Backbone``."""
        sigma, streaks, base = batch["sigma"], batch["streaks"], batch["base"]
        if self.settings.noise == "constant":
            sigma = torch.full_like(sigma, TYPICAL)
        if self.settings.base != "explained":
            base, streaks = batch[self.settings.base], torch.zeros_like(streaks)
        return batch.low, sigma, streaks, base

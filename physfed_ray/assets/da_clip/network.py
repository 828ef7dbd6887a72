"""The network of DA-CLIP: an image encoder with a dose and an anatomy head, and two sentences."""

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

HIGH_PASS_GAIN = 100.0
"""Noise is 1 to 4 % of the window: so many times that is of the order of 1."""
LOGIT_SCALE = 14.3
"""Factor on cosines in the quality, as in FoundDiff's code."""

Input = Literal["image", "noise"]
Norm = Literal["batch", "group"]


def noise_visible(image: Tensor) -> Tensor:
    """Return images with a second channel: what is left without the mean of 3 x 3, enlarged.

    Edges of the anatomy leave the range and are cut off, so that noise fills it.

    Args:
        image: (B, 1, h, w) on [0, 1].

    Returns:
        (B, 2, h, w) on [-1, 1].
    """
    mean = functional.avg_pool2d(functional.pad(image, (1, 1, 1, 1), "replicate"), 3, stride=1)
    high = (HIGH_PASS_GAIN * (image - mean)).clamp(-1, 1)
    return torch.cat((2 * image - 1, high), 1)


class DAClip(nn.Module):
    """Images to a dose and an anatomy embedding, both of unit length.

    Args:
        channels: Channels of the first of four convolutions; they double with each.
        dose_dim: Length of the dose embedding e_d.
        anatomy_dim: Length of the anatomy embedding e_a.
        seen: ``noise``: the image with a channel that shows its noise; ``image``: it alone.
        norm: Kind of the normalisations.
        constants: What the recipe made of its training slices, as buffers: ``sentences`` (2, d),
            the text embeddings of a clean and a noisy image.
    """

    sentences: Tensor

    def __init__(
        self,
        channels: int,
        dose_dim: int,
        anatomy_dim: int,
        seen: Input,
        norm: Norm,
        constants: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.seen = seen
        for name, tensor in constants.items():
            self.register_buffer(name, tensor)
        widths = [2 if seen == "noise" else 1, *(channels * 2**k for k in range(4))]
        self.trunk = nn.Sequential(
            *(
                _layer(here, there, norm, stride=1 if k == 0 else 2)
                for k, (here, there) in enumerate(itertools.pairwise(widths))
            )
        )
        width = widths[-1]
        self.dose = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dose_dim))
        self.anatomy = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, anatomy_dim)
        )
        self.text = nn.Linear(self.sentences.shape[1], dose_dim)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return e_d (B, dose_dim) and e_a (B, anatomy_dim).

        Args:
            image: (B, 1, h, w) on [0, 1] of the HU window, of any size.
        """
        shown = noise_visible(image) if self.seen == "noise" else 2 * image - 1
        features = self.trunk(shown).mean((2, 3))
        return (
            functional.normalize(self.dose(features), dim=1),
            functional.normalize(self.anatomy(features), dim=1),
        )

    def preference(self, dose: Tensor) -> Tensor:
        """Return how much more dose embeddings (B, dose_dim) are like "clean" than "noisy", (B,).

        Its sigmoid is the softmax over both cosines: the quality of an image.
        """
        prompts = functional.normalize(self.text(self.sentences), dim=1)
        clean, noisy = (LOGIT_SCALE * dose @ prompts.T).unbind(1)
        return clean - noisy


def _layer(channels: int, out: int, norm: Norm, stride: int) -> nn.Module:
    normalisation = nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(min(8, out), out)
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1), normalisation, nn.ReLU()
    )

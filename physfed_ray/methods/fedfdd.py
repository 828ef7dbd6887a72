"""FedFDD: high frequencies are denoised by a federated network, low ones by a local one.

Chen et al. 2024, "FedFDD: Federated learning with frequency domain decomposition for low-dose CT
denoising", MIDL. With the discrete cosine transform C and a mask M of low frequencies:

    x_l = C^-1(M . C(x)),  x_h = x - x_l
    y   = N_h(x_h, x) + N_l(x_l, x)               N_h shared and averaged, N_l private
    loss = MSE(y, y_full)                         or another objective of the experiment

Each N is an imaging network of its own, with a residual connection from its band, and reads the
image x beside the band. M keeps what lies within a radius of 0.43 to 0.5 of the way to the highest
frequency, drawn for each image, and of the rest a random part, the more the higher the frequency.
All this is as in the authors' code, which transforms slices before it cuts patches.

Adapted: patches are transformed as they are, their frequencies counted as shares of the highest, so
that a whole image's bands are the same. Validated and served is with one fixed mask for each size,
where the code draws at that time too. The code's ReLU on either band is left out: x_h is negative
as often as it is positive. y is summed as x and the corrections of both bands, so that the start is
the identity to the last bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.models.base import Backbone
from physfed_ray.models.frequency import adaptive_mask, add_guide, low_pass
from physfed_ray.seeds import derive_seed

HIGH, LOW = "", "low_"
"""What the names of the two networks' halves begin with."""


class FedFDDSettings(MethodSettings):
    """Keys under ``method:`` for FedFDD."""

    cutoff: tuple[float, float] = Field(
        (0.43, 0.5),
        description="least and greatest radius of the low frequencies, as a share of the distance "
        "of the highest frequency from 0, in [0, 1]",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        least, greatest = self.cutoff
        if not 0 <= least <= greatest <= 1:
            raise ValueError(
                f"'cutoff' ({least}, {greatest}) must be two numbers of [0, 1] in order"
            )
        return self


class FedFDD(Method):
    """The network of the high frequencies is shared and averaged, that of the low ones private."""

    name = "fedfdd"
    title = "FedFDD"
    paper = "Chen et al. 2024, MIDL"
    group = "personalised"
    shared = ("encoder", "decoder")
    no_graph = "its bands are drawn at random for each size of image"
    Settings = FedFDDSettings
    settings: FedFDDSettings

    @classmethod
    def refuses(cls, backbone: Backbone) -> str | None:
        """Say so of a backbone that cannot read an image beside the band."""
        if backbone.guide is not None and 0 in backbone.skips:
            return super().refuses(backbone)
        return (
            "FedFDD corrects a band of frequencies beside the whole image, and the backbone "
            f"'{backbone.name}' cannot read and correct two images: choose backbone.name = "
            "red_cnn, or another method"
        )

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the halves of both networks."""
        made, guide = super().children(), self.task.backbone.guide
        assert guide is not None  # the constructor refuses others
        encoder = made["encoder"]
        halves = {"encoder": lambda: add_guide(encoder(), guide), "decoder": made["decoder"]}
        return {f"{band}{half}": make for band in (HIGH, LOW) for half, make in halves.items()}

    def features(
        self, network: nn.Module, batch: Batch, code: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return features and skips of the high frequencies, those of the low ones, and the image.

        In training, the mask is drawn from torch's global generator.
        """
        x = batch.low
        x_l = low_pass(x, self._mask(network.training, x))
        # Encoders expect images about the inputs' mean, and x_h is about 0.
        bands = {HIGH: x - x_l + self.task.input_mean, LOW: x_l}
        parts: list[Tensor] = []
        for band, image in bands.items():
            guided = torch.cat((image, x), 1)
            encoder = network.get_submodule(f"{band}encoder")
            f, skips = self.encode(encoder, replace(batch, low=guided))
            parts += [f, *skips]
            parts[len(parts) - len(skips) + self._image] = image
        return *parts, x

    def decode(self, network: nn.Module, features: tuple[Tensor, ...]) -> Tensor:
        """Return denoised images (B, 1, h, w) from what ``features`` returned."""
        high, low = self._corrections(network, features)
        return features[-1] + high + low

    @torch.no_grad()
    def inspect(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Return ``high_correction`` and ``low_correction``, root mean squares over the images."""
        high, low = self._corrections(network, self.features(network, batch))
        return {
            "high_correction": float(high.float().square().mean().sqrt()),
            "low_correction": float(low.float().square().mean().sqrt()),
        }

    def _corrections(
        self, network: nn.Module, features: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return what each network adds to its band, (B, 1, h, w) both."""
        middle = len(features) // 2
        found = []
        for band, part in ((HIGH, features[:middle]), (LOW, features[middle:-1])):
            f, *skips = part
            denoised = network.get_submodule(f"{band}decoder")(f, tuple(skips))
            found.append(denoised - skips[self._image])
        high, low = found
        return high, low

    @property
    def _image(self) -> int:
        """Which of the backbone's skips is the image."""
        return self.task.backbone.skips.index(0)

    def _mask(self, training: bool, x: Tensor) -> Tensor:
        size, cutoff = (x.shape[-2], x.shape[-1]), self.settings.cutoff
        return (
            adaptive_mask(len(x), size, cutoff, x.device)
            if training
            else _fixed_mask(size, cutoff).to(x.device, non_blocking=True)
        )


def _fixed_mask(size: tuple[int, int], cutoff: tuple[float, float]) -> Tensor:
    """Return the mask that images of a size are validated and served with, (1, 1, h, w)."""
    generator = torch.Generator().manual_seed(derive_seed("fedfdd mask", *size))
    return adaptive_mask(1, size, cutoff, torch.device("cpu"), generator)

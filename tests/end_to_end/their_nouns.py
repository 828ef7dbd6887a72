"""One of every noun, as somebody else's package has them; test_nouns.py installs it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.assets.base import Examples, Recipe
from physfed_ray.assets.reference import AssetReference
from physfed_ray.assets.store import read_asset
from physfed_ray.federation.channel.base import Arrival, Channel, Packed, Passage
from physfed_ray.fields import Acquisition, Batch, Sizes
from physfed_ray.fields import Field as DataField
from physfed_ray.front_ends.base import FrontEnd, Scanners
from physfed_ray.methods.fedper import FedPer
from physfed_ray.methods.given import Aggregation
from physfed_ray.metrics.base import Context, Images, Metric
from physfed_ray.models.base import Backbone, NetworkSettings
from physfed_ray.objectives.base import Objective, ObjectiveSettings


def _noise_hu(scan: Acquisition) -> np.ndarray:
    return scan.low_hu - scan.full_hu


def _image(sizes: Sizes, protocol: Any) -> tuple[int, ...]:
    return sizes.image_size, sizes.image_size


NOISE = DataField("their_noise", np.float32, _image, "image", make=_noise_hu)


class Gain(nn.Module):
    """(1 + gain) times the scanner's image."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> Tensor:
        """Return the image."""
        return batch.low * (1 + self.gain)


class OneGain(FrontEnd):
    """Each client learns how bright its scanner's images should be."""

    name, title, paper = "their_gain", "One gain", "nobody's"

    def module(self, scanners: Scanners) -> nn.Module:
        """Return the network's child."""
        return Gain()


class TwoLayers(Backbone):
    """A convolution each way; the encoder reads the declared field beside the image."""

    class Settings(NetworkSettings):
        """Keys under ``backbone:``."""

        width: int = Field(4, ge=1, description="channels")

    name, title, paper = "their_net", "Two layers", "nobody's"
    stride = 1
    fields = ("their_noise",)
    settings: Settings

    @property
    def feature_channels(self) -> int:
        """Channels at the bottleneck."""
        return self.settings.width

    @property
    def skips(self) -> tuple[int, ...]:
        """The image itself."""
        return (0,)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """The image, and what the noise added to it."""
        return batch.low, batch["their_noise"] / 1000

    def encoder(self, mean: float, std: float) -> nn.Module:
        """Return a new encoder."""
        return _Encoder(self.settings.width, mean, std)

    def decoder(self) -> nn.Module:
        """Return a new decoder."""
        return _Decoder(self.settings.width)


class _Encoder(nn.Module):
    stride = 1

    def __init__(self, width: int, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.layer = nn.Conv2d(2, width, 3, padding=1)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.layer(torch.cat(((x - self.mean) / self.std, noise), 1)), (x,)


class _Decoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, f: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        change: Tensor = self.layer(functional.relu(f))
        return skips[0] + change


class Blur(Recipe):
    """A convolution that learns to make a full-dose image smoother."""

    name, title, paper = "their_blur", "Blur", "nobody's"

    def network(self, constants: Mapping[str, Tensor]) -> nn.Module:
        """Return a new convolution."""
        return nn.Conv2d(1, 1, 3, padding=1)

    def loss(
        self, network: nn.Module, examples: Examples, step: int, turn: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return how far it is from the mean of each pixel's neighbourhood."""
        full = examples.batch.full
        loss = functional.mse_loss(network(full), functional.avg_pool2d(full, 3, 1, 1))
        return loss, {"error": loss.detach()}

    def scores(self, network: nn.Module, held_out: Sequence[Examples]) -> dict[str, float]:
        """Return the mean loss."""
        return {"error": float(np.mean([self.loss(network, e, 0, 0)[0].item() for e in held_out]))}


class Huber(Objective):
    """The Huber loss of the images, and of what a frozen network makes of them."""

    class Settings(ObjectiveSettings):
        """Keys under ``training.objective:``."""

        asset: AssetReference = Field(description="a network of `their_blur`")
        delta: float = Field(0.1, gt=0, description="where it turns linear")

    name, title, paper = "their_huber", "Huber", "Huber 1964"
    settings: Settings

    def assets(self) -> tuple[str, ...]:
        """The network."""
        return (self.settings.asset,)

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        """How to read it."""
        return {"blur": lambda: read_asset(self.settings.asset).network()}

    def __call__(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its two parts."""
        delta, blur = self.settings.delta, self.frozen()["blur"]
        denoised, full = denoised.float(), batch.full.float()
        huber = functional.huber_loss(denoised, full, delta=delta)
        blurred = functional.huber_loss(blur(denoised), blur(full), delta=delta)
        return huber + blurred, {"huber": huber.detach(), "blurred": blurred.detach()}


class Halves(FedPer):
    """FedPer whose server goes half of the way to the mean, in units that it publishes."""

    name, title = "their_halves", "Halves"

    def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the middle of the last vector and the mean."""
        count = np.array([len(aggregation.clients)], np.float32)
        return (aggregation.previous + aggregation.mean) / 2, {"their_count": count}


class Integers(Channel):
    """Sums of integers, which are exact."""

    class Settings(BaseModel):
        """Keys under ``federation.channel:``."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        bits: int = Field(30, ge=1, le=40, description="binary digits behind the point")

    name = "their_integers"
    settings: Settings

    def packed(self, size: int) -> Packed:
        """Return as many numbers, in 64 bits."""
        return Packed(size, "int64")

    def outgoing(self, update: Tensor, passage: Passage) -> Tensor:
        """Weigh and round."""
        return (update.double() * (passage.weight * 2**self.settings.bits)).round().long()

    def incoming(self, total: Tensor, mean: Tensor, arrival: Arrival) -> Any:
        """Undo it."""
        mean.copy_(total.double() / (arrival.weight * 2**self.settings.bits))
        return arrival.state

    def account(self, arrival: Arrival) -> dict[str, float]:
        """Return the digits."""
        return {"bits": float(self.settings.bits)}


class MeanError(Metric):
    """Mean of the error.

    Nobody's.
    """

    name, heading, unit, decimals = "their_error_hu", "Mean error", "HU", 2
    better = "neither"

    def __call__(self, denoised: Images, reference: Images, context: Context) -> Any:
        """Return the mean error of each slice in the window."""
        low, high = context.window
        return (np.clip(denoised, low, high) - np.clip(reference, low, high)).mean((1, 2))

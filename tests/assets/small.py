"""A small recipe, for tests: a denoising autoencoder of two layers, and an adversary if asked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.assets.base import Examples, Recipe, RecipeSettings, Table
from physfed_ray.assets.reference import AssetReference
from physfed_ray.assets.registry import RECIPES
from physfed_ray.assets.store import read_asset
from physfed_ray.fields import Batch
from physfed_ray.objectives.base import Objective, ObjectiveSettings
from physfed_ray.objectives.registry import OBJECTIVES
from physfed_ray.registry import Registry


class SmallSettings(RecipeSettings):
    """Its settings."""

    channels: int = Field(4, ge=1, le=64, description="of its one hidden layer")
    noise: float = Field(0.0, ge=0, le=1, description="added to its input while it trains")


class Small(Recipe):
    """Full dose -> itself, with the mean image as a constant, and a second loss of its own."""

    name = "small"
    title = "a small autoencoder"
    paper = "nobody's"
    Settings = SmallSettings

    @property
    def turns(self) -> int:
        """See ``Recipe``."""
        return 2

    def constants(self, examples: Sequence[Examples], seed: int) -> Mapping[str, Tensor]:
        """Return the mean image, and note the regions."""
        self._regions = sorted({region for part in examples for region in part.regions})
        images = torch.cat([part.batch.full for part in examples])
        return {"mean": images.mean(0)}

    def words(self) -> Mapping[str, Sequence[str]]:
        """Return the regions."""
        return {"regions": self._regions}

    def network(self, constants: Mapping[str, Tensor]) -> nn.Module:
        """Return two convolutions, and a bias that only training has."""
        network = nn.Module()
        channels = self.settings.model_dump()["channels"]
        network.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 1, 3, padding=1)
        )
        network.register_buffer("mean", constants["mean"])
        network.training_only = nn.Linear(1, 1)
        return network

    def parameters(self, network: nn.Module, turn: int) -> list[nn.Parameter]:
        """Return the convolutions, then what only training has."""
        part = (network.layers, network.training_only)[turn]
        return list(part.parameters())

    def loss(
        self, network: nn.Module, examples: Examples, step: int, turn: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the squared error of noisy images; then that of a number."""
        if turn:
            guess = network.training_only(examples.batch.full.mean((1, 2, 3))[:, None])
            return guess.square().mean(), {}
        low = examples.batch.low
        noisy = low + self.settings.model_dump()["noise"] * torch.randn_like(low)
        error = functional.mse_loss(denoised(network, noisy), examples.batch.full)
        return error, {"largest": noisy.detach().max()}

    def scores(self, network: nn.Module, held_out: Sequence[Examples]) -> dict[str, float]:
        """Return the error on what it has not seen."""
        errors = [
            functional.mse_loss(denoised(network, part.batch.low), part.batch.full)
            for part in held_out
        ]
        return {"mse": float(torch.stack(errors).mean())}

    def tables(self, network: nn.Module, held_out: Sequence[Examples]) -> Sequence[Table]:
        """Return the region and the report of each slice."""
        rows = [row for part in held_out for row in zip(part.regions, part.reports, strict=True)]
        return [Table("Held-out slices", ("region", "report"), tuple(rows))]


class SmallScanned(Small):
    """The same from low dose."""

    name = "small_scanned"
    scanned = True


def denoised(network: nn.Module, images: Tensor) -> Tensor:
    """Return images (B, 1, n, n) as the network has them."""
    out: Tensor = images + network.layers(images - network.mean)
    return out


class JudgedSettings(ObjectiveSettings):
    """Its settings."""

    asset: AssetReference = Field(description="a network of the recipe `small`")


class Judged(Objective):
    """The squared error between what a frozen network makes of both images."""

    name = "judged"
    title = "as a frozen network sees it"
    paper = "nobody's"
    Settings = JudgedSettings

    def assets(self) -> tuple[str, ...]:
        """See ``Objective``."""
        return (str(self.settings.model_dump()["asset"]),)

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        """See ``Objective``."""
        return {"judge": self._judge}

    def _judge(self) -> nn.Module:
        with pytest.MonkeyPatch.context() as patch:
            register(patch)  # another process has no other way to know the recipe
            return read_asset(self.assets()[0]).network()

    def __call__(self, images: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Objective``."""
        judge = self.frozen()["judge"]
        loss = functional.mse_loss(denoised(judge, images), denoised(judge, batch.full))
        return loss.float(), {"judged": loss.detach()}


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files name all of this."""
    entries: tuple[tuple[Registry[Any], dict[str, str]], ...] = (
        (RECIPES, {"small": "Small", "small_scanned": "SmallScanned"}),
        (OBJECTIVES, {"judged": "Judged"}),
    )
    for registry, own in entries:
        named = {name: f"{__name__}:{kind}" for name, kind in own.items()}
        monkeypatch.setattr(registry, "_own", {**registry._own, **named})
        monkeypatch.delitem(registry.__dict__, "_entries", raising=False)

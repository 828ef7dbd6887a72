"""Backbones by name: imaging networks split into an encoder and a decoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from torch import nn

from physfed_ray.models.red_cnn import RedCNNDecoder, RedCNNEncoder, add_batch_norm
from physfed_ray.models.uformer import SIZES, STRIDE, UformerDecoder, UformerEncoder


class BackboneSettings(BaseModel):
    """The imaging network (keys under ``backbone:``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("red_cnn", description="imaging network: red_cnn or uformer")
    size: str | None = Field(
        None,
        description="size of uformer: T, S or B of Wang et al. 2022, by default T; null for "
        "red_cnn, which has none",
    )
    channels: int = Field(
        96,
        ge=1,
        le=1024,
        description="feature channels; 96 in Chen et al. 2017 and Yang et al.; for uformer the "
        "width of the embedding, by default that of its size: 16, 32, 32",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_networks_own(cls, given: Any) -> Any:
        """Add size and channels of the network where they are not given."""
        name = given.get("name", "red_cnn") if isinstance(given, dict) else None
        if not isinstance(name, str) or name not in BACKBONES:
            return given
        sizes = BACKBONES[name].channels
        size = given.get("size", next(iter(sizes)))
        own = [("channels", width) for known, width in sizes.items() if known == size]
        return {"size": size, **dict(own), **given}

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone '{name}'; there are: {', '.join(BACKBONES)}")
        return name

    @field_validator("size")
    @classmethod
    def _of_that_network(cls, size: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("name")
        if name is None or size in BACKBONES[name].channels:
            return size
        known = [other for other in BACKBONES[name].channels if other]
        if not known:
            raise ValueError(f"{name} has no sizes: leave 'size' out")
        raise ValueError(f"{name} has the sizes {', '.join(known)}: set 'size' to one of them")

    @property
    def label(self) -> str:
        """The network in words: its name, size and channels."""
        return f"{' '.join(filter(None, (self.name, self.size)))} with {self.channels} channels"


@dataclass(frozen=True)
class Backbone:
    """How to make the two halves of an imaging network.

    Attributes:
        title: What it is, with its source.
        channels: Its sizes, and the channels that each has by default; the first is the default.
            A network without sizes has the only key None.
        encoder: (settings, input mean, input std) -> module: x (B, 1, h, w) -> features
            (B, C, h', w') and a tuple of skips. Its ``stride`` is the distance of two neighbouring
            features in pixels.
        decoder: settings -> module: features, skips -> image (B, 1, h, w).
        feature_channels: settings -> C, the number of channels at the bottleneck.
        skip_channels: settings -> channels of each skip in turn; 0 for the image itself.
        batch_norm: Puts batch normalisations, as a child ``norms``, behind the ``layers`` of a
            half; None for a network that has no place for them.
        fields: Fields of a slice that it reads beside ``low`` (``physfed_ray.fields``).
    """

    title: str
    channels: Mapping[str | None, int]
    encoder: Callable[[BackboneSettings, float, float], nn.Module]
    decoder: Callable[[BackboneSettings], nn.Module]
    feature_channels: Callable[[BackboneSettings], int]
    skip_channels: Callable[[BackboneSettings], tuple[int, ...]]
    batch_norm: Callable[[nn.Module], nn.Module] | None = None
    fields: tuple[str, ...] = ()


BACKBONES: Mapping[str, Backbone] = {
    "red_cnn": Backbone(
        title="RED-CNN (Chen et al. 2017)",
        channels={None: 96},
        encoder=lambda settings, mean, std: RedCNNEncoder(settings.channels, mean, std),
        decoder=lambda settings: RedCNNDecoder(settings.channels),
        feature_channels=lambda settings: settings.channels,
        skip_channels=lambda settings: (0, settings.channels, settings.channels),
        batch_norm=add_batch_norm,
    ),
    "uformer": Backbone(
        title="Uformer (Wang et al. 2022)",
        channels={name: size.channels for name, size in SIZES.items()},
        encoder=lambda settings, mean, std: UformerEncoder(
            settings.channels, _depths(settings), mean, std
        ),
        decoder=lambda settings: UformerDecoder(settings.channels, _depths(settings)),
        feature_channels=lambda settings: STRIDE * settings.channels,
        skip_channels=lambda settings: (0, *(settings.channels << level for level in range(4))),
    ),
}


def _depths(settings: BackboneSettings) -> tuple[int, ...]:
    assert settings.size is not None  # the settings' validator refuses a Uformer without a size
    return SIZES[settings.size].depths


def make_backbone(
    settings: BackboneSettings, mean: float = 0.0, std: float = 1.0
) -> tuple[nn.Module, nn.Module]:
    """Return a new encoder and decoder.

    Args:
        settings: Which network, and how wide.
        mean: Mean of the training inputs, on the scale of the HU window.
        std: Their standard deviation.
    """
    backbone = BACKBONES[settings.name]
    return backbone.encoder(settings, mean, std), backbone.decoder(settings)


def backbone_of(settings: BackboneSettings) -> Backbone:
    """Return the backbone that settings name."""
    return BACKBONES[settings.name]


def parameter_counts(network: nn.Module) -> dict[str, int]:
    """Return the number of parameters of every child of a network."""
    return {
        name: sum(parameter.numel() for parameter in child.parameters())
        for name, child in network.named_children()
    }

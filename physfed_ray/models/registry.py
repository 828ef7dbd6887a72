"""Backbones by name: imaging networks split into an encoder and a decoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from physfed_ray.models.red_cnn import RedCNNDecoder, RedCNNEncoder


class BackboneSettings(BaseModel):
    """The imaging network (keys under ``backbone:``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("red_cnn", description="imaging network: red_cnn")
    channels: int = Field(
        96, ge=1, le=1024, description="feature channels; 96 in Chen et al. 2017 and Yang et al."
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKBONES:
            raise ValueError(f"unknown backbone '{name}'; there are: {', '.join(BACKBONES)}")
        return name


@dataclass(frozen=True)
class Backbone:
    """How to make the two halves of an imaging network.

    Attributes:
        title: What it is, with its source.
        encoder: (settings, input mean, input std) -> module: x (B, 1, h, w) -> features
            (B, C, h', w') and a tuple of skips. Its ``stride`` is the distance of two neighbouring
            features in pixels.
        decoder: settings -> module: features, skips -> image (B, 1, h, w).
        feature_channels: settings -> C, the number of channels at the bottleneck.
        skip_channels: settings -> channels of each skip in turn; 0 for the image itself.
    """

    title: str
    encoder: Callable[[BackboneSettings, float, float], nn.Module]
    decoder: Callable[[BackboneSettings], nn.Module]
    feature_channels: Callable[[BackboneSettings], int]
    skip_channels: Callable[[BackboneSettings], tuple[int, ...]]


BACKBONES: Mapping[str, Backbone] = {
    "red_cnn": Backbone(
        title="RED-CNN (Chen et al. 2017)",
        encoder=lambda settings, mean, std: RedCNNEncoder(settings.channels, mean, std),
        decoder=lambda settings: RedCNNDecoder(settings.channels),
        feature_channels=lambda settings: settings.channels,
        skip_channels=lambda settings: (0, settings.channels, settings.channels),
    )
}


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

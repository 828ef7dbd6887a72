"""RED-CNN, split at its bottleneck.

Chen et al. 2017, "Low-dose CT with a residual encoder-decoder convolutional neural network",
IEEE Trans. Med. Imaging 36(12): five 5x5 convolutions and five transposed ones without padding,
and three skips (the input, and the features after the second and the fourth convolution).

The features at the bottleneck are those before the activation: the decoder begins with the ReLU.
Unmodulated this is RED-CNN itself, but a modulation of the features acts through a non-linearity.
Behind it, the decoder's first layer, which is linear, could absorb every scale and shift.

RED-CNN has no normalisation. ``RedCNN.add_norms`` puts one where Ioffe and Szegedy 2015, "Batch
normalization", ICML, have theirs: straight behind each layer but the last, before its skip and its
activation.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.models.base import Backbone, NetworkSettings

KERNEL = 5


class RedCNNSettings(NetworkSettings):
    """Keys under ``backbone:`` for RED-CNN."""

    channels: int = Field(
        96, ge=1, le=1024, description="feature channels; 96 in Chen et al. 2017 and Yang et al."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_size(cls, given: Any) -> Any:
        """Accept ``size: null``, which the files of earlier runs have."""
        if isinstance(given, dict) and "size" in given and given["size"] is None:
            return {key: value for key, value in given.items() if key != "size"}
        return given


class RedCNNEncoder(nn.Module):
    """Five convolutions; every side shrinks by 20 pixels.

    Args:
        channels: Feature channels C.
        mean: Mean of the training inputs, on the scale of the HU window.
        std: Their standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std if std > 0 else 1.0), persistent=False)
        self.layers = nn.ModuleList(
            nn.Conv2d(1 if i == 0 else channels, channels, KERNEL) for i in range(5)
        )
        self.norms = nn.ModuleList(nn.Identity() for _ in range(5))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode images.

        Args:
            x: (B, 1, h, w) float32, 0 and 1 are the ends of the HU window; sides above 20.

        Returns:
            Features before their activation (B, C, h - 20, w - 20), and the skips: ``x`` itself,
            (B, C, h - 8, w - 8) and (B, C, h - 16, w - 16).
        """
        f, shallow, deep = self.convolve((x - self.mean) / self.std)
        return f, (x, shallow, deep)

    def convolve(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the layers make of standardised images: features, and two skips."""
        first, second, third, fourth, fifth = self.layers
        norms = self.norms
        # A single channel is both formats at once, so that channels-last must be asked for here.
        out = first(seen).contiguous(memory_format=torch.channels_last)
        shallow = functional.relu(norms[1](second(functional.relu(norms[0](out)))))
        out = functional.relu(norms[2](third(shallow)))
        deep = functional.relu(norms[3](fourth(out)))
        return norms[4](fifth(deep)), shallow, deep


class RedCNNDecoder(nn.Module):
    """Five transposed convolutions, the last of which starts at zero: the identity at the start.

    Args:
        channels: Feature channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(channels, 1 if i == 4 else channels, KERNEL) for i in range(5)
        )
        self.norms = nn.ModuleList(nn.Identity() for _ in range(4))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, f: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Decode features before their activation, (B, C, h - 20, w - 20), to (B, 1, h, w)."""
        x, shallow, deep = skips
        return self.deconvolve(f, shallow, deep) + x

    def deconvolve(self, f: Tensor, shallow: Tensor, deep: Tensor) -> Tensor:
        """Return the residual image of features and two skips."""
        first, second, third, fourth, fifth = self.layers
        norms = self.norms
        out = functional.relu(norms[0](first(functional.relu(f))) + deep)
        out = functional.relu(norms[1](second(out)))
        out = functional.relu(norms[2](third(out)) + shallow)
        residual: Tensor = fifth(functional.relu(norms[3](fourth(out))))
        return residual


class RedCNN(Backbone):
    """RED-CNN, with places for normalisations."""

    name = "red_cnn"
    title = "RED-CNN"
    paper = "Chen et al. 2017, IEEE TMI"
    Settings = RedCNNSettings
    stride = 1
    norms = ("norms",)
    guide: ClassVar[str | None] = "layers.0"
    settings: RedCNNSettings

    @property
    def label(self) -> str:
        """See ``Backbone``."""
        return f"{self.name} with {self.settings.channels} channels"

    @property
    def feature_channels(self) -> int:
        """See ``Backbone``."""
        return self.settings.channels

    @property
    def skips(self) -> tuple[int, ...]:
        """See ``Backbone``."""
        return 0, self.settings.channels, self.settings.channels

    def encoder(self, mean: float, std: float) -> nn.Module:
        """See ``Backbone``."""
        return RedCNNEncoder(self.settings.channels, mean, std)

    def decoder(self) -> nn.Module:
        """See ``Backbone``."""
        return RedCNNDecoder(self.settings.channels)

    def add_norms(self, half: nn.Module) -> nn.Module:
        """See ``Backbone``.

        They take the place of the biases of the layers before them: a batch's mean, which they
        subtract, would take every effect and gradient from a bias. Nothing is drawn.
        """
        layers, norms = half.get_submodule("layers"), half.get_submodule("norms")
        for name, _ in list(norms.named_children()):
            layer: Any = layers.get_submodule(name)
            layer.bias = None
            norms.register_module(name, nn.BatchNorm2d(layer.out_channels))
        return half

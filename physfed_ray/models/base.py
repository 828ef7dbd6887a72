"""What a backbone is: an imaging network in two halves, and what it says of itself.

Methods share one half and keep the other private, put normalisations into them, modulate their
features. They rely on what a backbone declares here and never look for a layer by its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch

Judge = Callable[[Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]
"""What an objective says of images (B, 1, h, w): a loss and its parts by name."""


class NetworkSettings(BaseModel):
    """Keys under ``backbone:`` beside ``name``; a network adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Backbone(ABC):
    """An imaging network, cut at its bottleneck into an encoder and a decoder.

    Args:
        settings: An instance of ``Settings``.

    Attributes:
        name: Its name in experiments.
        title: Its name in tables.
        paper: Citation.
        Settings: Schema of the keys under ``backbone:`` beside ``name``.
        stride: Distance of two neighbouring features in pixels.
        domain: Where its features lie: at pixels of the image, or at views and bins of a sinogram.
        fields: What it reads of a batch beside the low-dose image.
        start: Name of the image in a batch that an untrained network returns.
        norms: Children of either half that hold the places which ``add_norms`` fills; none in a
            network that has no place for batch normalisations.
        guide: Path, in the encoder, of the convolution that reads the image and can be made to
            read a second one beside it; None where there is no such layer.
        no_graph: Why it cannot be exported as a graph for images of any size, in words that end a
            sentence; "" where it can.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = NetworkSettings
    stride: ClassVar[int]
    domain: ClassVar[Literal["image", "sinogram"]] = "image"
    fields: ClassVar[tuple[str, ...]] = ()
    start: ClassVar[str] = "low"
    norms: ClassVar[tuple[str, ...]] = ()
    guide: ClassVar[str | None] = None
    no_graph: ClassVar[str] = ""

    def __init__(self, settings: BaseModel) -> None:
        self.settings = settings

    @property
    def label(self) -> str:
        """The network in words: its name, and the settings that tell it from others."""
        return self.name

    @property
    @abstractmethod
    def feature_channels(self) -> int:
        """Channels C at the bottleneck."""

    @property
    @abstractmethod
    def skips(self) -> tuple[int, ...]:
        """Channels of each skip in turn; 0 for an image that the encoder was given or made."""

    @abstractmethod
    def encoder(self, mean: float, std: float) -> nn.Module:
        """Return a new encoder: what ``inputs`` returns -> features (B, C, h', w'), and the skips.

        Args:
            mean: Mean of the training inputs, on the scale of the HU window.
            std: Their standard deviation.
        """

    @abstractmethod
    def decoder(self) -> nn.Module:
        """Return a new decoder: features and a tuple of skips -> images (B, 1, h, w)."""

    def assets(self) -> tuple[str, ...]:
        """Return the assets that its settings name: names or paths, as ``read_asset`` takes them.

        An experiment checks them before it begins, Ray brings them to the hosts, and a copy lies
        in the run directory, because the trained network needs them.
        """
        return ()

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return what the encoder is called with; networks that read more fields override it."""
        return (batch.low,)

    def add_norms(self, half: nn.Module) -> nn.Module:
        """Put batch normalisations into the places of a new half, and return it.

        All else keeps its weights; a network without places (``norms``) stays as it is.
        """
        return half

    def with_channels(self, channels: int) -> Self:
        """Return the same network of another width.

        Raises:
            PhysFedError: Its settings have no key ``channels``.
        """
        keys: dict[str, Any] = self.settings.model_dump()
        if "channels" not in keys:
            raise PhysFedError(
                f"the backbone '{self.name}' has no key 'channels', so that its width cannot be "
                "set: leave the setting that asks for another width out, or choose another backbone"
            )
        return type(self)(self.Settings.model_validate(keys | {"channels": channels}))


class HandOn(nn.Module):
    """The encoder of a diffusion network: it has no parameters, and hands the image on."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return images (B, 1, h, w) as they are, and no skips."""
        return x, ()


class DiffusionBackbone(Backbone):
    """A network that denoises step by step, with a training loss of its own.

    Its encoder has no parameters and hands the image on; its decoder holds them all, and samples.
    A method must say that it can share such a network (``Method.diffusion``).
    """

    stride = 1
    feature_channels = 1
    skips = ()

    def encoder(self, mean: float, std: float) -> nn.Module:
        """See ``Backbone``; the network's scale is fixed, so that the statistics are not used."""
        return HandOn()

    @abstractmethod
    def fit(
        self, decoder: nn.Module, batch: Batch, judge: Judge
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training loss of a batch, and its detached parts by name.

        Random steps and noise are drawn from torch's generator, which the client has seeded.

        Args:
            decoder: What ``decoder`` returned.
            batch: The images.
            judge: The experiment's objective, for estimates of the full-dose images (B, 1, h, w).
        """

    @property
    @abstractmethod
    def steps(self) -> int:
        """Times that its network is asked when it denoises."""

    @abstractmethod
    def images(self, decoder: nn.Module, low: Tensor) -> list[Tensor]:
        """Return the image after each step of denoising; the last is the result.

        A new client can weight them (``physfed enrol --one-shot``).

        Args:
            decoder: What ``decoder`` returned.
            low: Low-dose images (B, 1, h, w).

        Returns:
            ``steps`` images, (B, 1, h, w) each.
        """

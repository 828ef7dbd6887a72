"""What a front end is: the way from a client's sinograms to the images that its network reads.

A front end is fixed or learned. A fixed one makes the images once, while the data are prepared, and
may choose its settings for each client on validation slices. A learned one is a private child of
every network, because what it learns belongs to one geometry; it starts as the scanner's own FBP.
"""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import nn

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.simulation import Simulation

FRONT_END = "front_end"
"""Name of a learned front end among the children of a network."""

Choice = Mapping[str, float]
"""What a front end has chosen for one protocol, by the names of its settings."""


class FrontEndSettings(BaseModel):
    """Keys under ``front_end:`` beside ``name``; a front end adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Scanners:
    """The scanners of an experiment, as a learned front end must know them to be built.

    Attributes:
        protocols: Those of the training clients.
        simulation: How they scan; its kernel is that of the FBP from which learning starts.
        window_hu: HU that become 0 and 1 for the network.
    """

    protocols: tuple[Protocol, ...]
    simulation: Simulation
    window_hu: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """Slices of one protocol on which a front end chooses its settings.

    Attributes:
        line_integrals: What the detector measured, (N, views, bins) float32, dimensionless.
        full_hu: Full-dose images, (N, n, n) float32, HU.
        protocol: How they were scanned.
        simulation: How that was simulated.
        window_hu: HU between which errors count.
    """

    line_integrals: NDArray[np.float32]
    full_hu: NDArray[np.float32]
    protocol: Protocol
    simulation: Simulation
    window_hu: tuple[float, float]


class FrontEnd(ABC):
    """A front end; the defaults are those of a network that reads the scanner's own FBP.

    Args:
        settings: An instance of ``Settings``.

    Attributes:
        name: Its name in experiments.
        title: What it is, in words.
        paper: Citation.
        Settings: Schema of the keys under ``front_end:`` beside ``name``.
        fields: What a learned one reads of a batch, beside images; none of a fixed one.
        of_images: Whether its network can also denoise images that a scanner has reconstructed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = FrontEndSettings
    fields: ClassVar[tuple[str, ...]] = ()
    of_images: ClassVar[bool] = True

    def __init__(self, settings: BaseModel) -> None:
        self.settings = settings

    # A fixed front end.

    @property
    def prepares(self) -> bool:
        """Whether it makes other images from the sinograms than the scanner's own FBP."""
        return False

    @property
    def chooses(self) -> bool:
        """Whether some of its settings are left to be chosen on validation slices."""
        return False

    def choose(self, slices: Measured) -> Choice:
        """Return all settings that ``reconstruct`` needs, those that are open chosen on slices.

        There are none of these where nothing is open.
        """
        return {}

    def reconstruct(
        self,
        line_integrals: NDArray[np.float32],
        protocol: Protocol,
        simulation: Simulation,
        choice: Choice,
        *,
        device: str = "cpu",
    ) -> NDArray[np.float32]:
        """Return images of what a detector measured, (B, n, n) float32, HU, not clipped.

        Args:
            line_integrals: (B, views, bins) float32, dimensionless.
            protocol: The scanner.
            simulation: How its scans are simulated.
            choice: What ``choose`` returned for the protocol.
            device: Where to compute, ``cpu`` or ``cuda``.
        """
        raise NotImplementedError(f"the front end '{self.name}' makes no images beforehand")

    # A learned front end.

    def refuses(self, scanners: Scanners) -> str | None:
        """Return why it cannot be built for an experiment's scanners, None when it can."""
        return None

    def module(self, scanners: Scanners) -> nn.Module | None:
        """Return the network's child ``front_end``, None where nothing is learned.

        It maps a batch to images (B, 1, n, n) float32 on the scale of the window, and starts as the
        FBP of ``batch.protocol``, which is one of the scanners'.
        """
        return None

"""What a phantom is: objects that a metric has scanned many times, in place of patients."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from physfed_ray.ct.attenuation import AIR_HU
from physfed_ray.window import Window

BACKGROUND_HU = 40.0
"""Soft tissue."""
BODY_RADIUS = 0.42
"""Of the disk of soft tissue, in sides of the image."""
_SUPERSAMPLING = 8


@dataclass(frozen=True)
class Made:
    """A phantom on a grid.

    Attributes:
        objects: (K, n, n) float32 HU: what is scanned, each object as often as the others.
    """

    objects: NDArray[np.float32]

    @property
    def body(self) -> NDArray[np.uint8]:
        """1 on the phantom, (n, n)."""
        return np.asarray(self.objects[0] > (AIR_HU + BACKGROUND_HU) / 2, np.uint8)


@dataclass(frozen=True)
class Phantom(ABC):
    """A phantom of any size.

    Attributes:
        kind: The split under which tables find what is measured on it.
        objects: How many objects it has.
        scans: Scans of each object.
        unseen: Whether it is scanned under unseen protocols too.
        full_dose: By how much the photons are multiplied in scans that are measured beside the
            low dose, undenoised; None for no such scans.
    """

    kind: ClassVar[str]
    objects: ClassVar[int]
    scans: ClassVar[int]
    unseen: ClassVar[bool] = False
    full_dose: ClassVar[float | None] = None

    @property
    def images(self) -> int:
        """Scans of all objects together."""
        return self.objects * self.scans

    @property
    @abstractmethod
    def key(self) -> tuple[str | int, ...]:
        """What its random streams derive from, beside the scanner's name."""

    @abstractmethod
    def make(self, image_size: int, pixel_mm: float) -> Made:
        """Return its objects.

        Args:
            image_size: Side n in pixels.
            pixel_mm: Pixel length, mm.
        """

    @abstractmethod
    def fits(self, window: Window) -> bool:
        """Return whether the experiment's window shows what there is to see."""


def disk(image_size: int, centre: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """Return the share of each pixel that a disk covers, (n, n).

    Args:
        image_size: Side n in pixels.
        centre: Row and column beside the image's centre, in sides of the image.
        radius: Likewise.
    """
    fine = image_size * _SUPERSAMPLING
    axis = (np.arange(fine) + 0.5) / fine - 0.5
    inside = (axis[:, None] - centre[0]) ** 2 + (axis[None] - centre[1]) ** 2 <= radius**2
    blocks = inside.reshape(image_size, _SUPERSAMPLING, image_size, _SUPERSAMPLING)
    return np.asarray(blocks.mean(axis=(1, 3)))


def soft_tissue(image_size: int) -> NDArray[np.float64]:
    """Return a disk of soft tissue in air, (n, n) HU."""
    return AIR_HU + (BACKGROUND_HU - AIR_HU) * disk(image_size, (0.0, 0.0), BODY_RADIUS)

"""The phantom on which detectability is measured: faint discs in soft tissue, and none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from physfed_ray.metrics.phantoms import BODY_RADIUS, Made, Phantom, disk, soft_tissue
from physfed_ray.window import Window

KINDS = ((6.0, 10.0), (6.0, 40.0), (12.0, 6.0), (12.0, 20.0))
"""Diameter (mm) and contrast (HU) of each kind of disc."""
PLACES = 8
"""Places of discs, which the kinds share evenly."""
_RING = 0.6 * BODY_RADIUS
_TURN = 0.13  # of the ring in radians, so that no disc lies on an axis of the grid


@dataclass(frozen=True)
class Discs(Made):
    """Two objects: with the discs, and without.

    Attributes:
        centres: Place of each kind's discs, (kinds, places / kinds, 2): row and column in pixels,
            0 the middle of the first pixel.
        pixel_mm: Pixel length, mm.
    """

    centres: NDArray[np.float64]
    pixel_mm: float


@dataclass(frozen=True)
class DiscPhantom(Phantom):
    """Soft tissue with discs on a ring, the kinds in turn, and the same without discs."""

    kind = "discs"
    objects = 2
    scans = 64
    unseen = True
    full_dose = 10.0

    @property
    def key(self) -> tuple[str | int, ...]:
        """See ``Phantom``."""
        return (self.kind,)

    def make(self, image_size: int, pixel_mm: float) -> Discs:
        """See ``Phantom``."""
        angles = 2 * np.pi * np.arange(PLACES) / PLACES + _TURN
        places = _RING * np.stack([np.sin(angles), np.cos(angles)], axis=1)
        without = soft_tissue(image_size)
        with_discs = without.copy()
        for place, (row, column) in enumerate(places.tolist()):
            diameter, contrast = KINDS[place % len(KINDS)]
            radius = diameter / 2 / pixel_mm / image_size
            with_discs += contrast * disk(image_size, (row, column), radius)
        centres = np.stack([places[k :: len(KINDS)] for k in range(len(KINDS))])
        return Discs(
            np.stack([with_discs, without]).astype(np.float32),
            (centres + 0.5) * image_size - 0.5,
            pixel_mm,
        )

    def fits(self, window: Window) -> bool:
        """See ``Phantom``: it shows soft tissue."""
        return window[0] < 0 < window[1]

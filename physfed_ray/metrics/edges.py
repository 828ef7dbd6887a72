"""The phantom on which the sharpness of an edge is measured: a soft-tissue disk with an insert."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from physfed_ray.metrics.phantoms import BACKGROUND_HU, Made, Phantom, disk, soft_tissue
from physfed_ray.window import Window

INSERT_RADIUS = 0.16
"""In sides of the image."""
INSERT_CENTRE = (0.0213, 0.0371)
"""Beside the image's centre, in sides of the image, so that no pixel grid is met twice."""


@dataclass(frozen=True)
class Edge(Made):
    """A disk of soft tissue with one round insert, and where its edge is.

    Attributes:
        radius: Radius of the insert in pixels.
        distance: Each pixel's distance from the insert's centre in pixels, (n, n).
        contrast_hu: Insert minus background.
    """

    radius: float
    distance: NDArray[np.float64]
    contrast_hu: float


@dataclass(frozen=True)
class EdgePhantom(Phantom):
    """An edge of a contrast.

    Attributes:
        contrast_hu: Insert minus background, HU.
    """

    kind = "edge"
    objects = 1
    scans = 16  # their mean must be quiet enough for a derivative
    contrast_hu: int

    @property
    def key(self) -> tuple[str | int, ...]:
        """See ``Phantom``."""
        return self.kind, self.contrast_hu

    def make(self, image_size: int, pixel_mm: float) -> Edge:
        """See ``Phantom``."""
        insert = disk(image_size, INSERT_CENTRE, INSERT_RADIUS)
        image = soft_tissue(image_size) + self.contrast_hu * insert
        axis = (np.arange(image_size) + 0.5) / image_size - 0.5
        rows, columns = axis[:, None] - INSERT_CENTRE[0], axis[None] - INSERT_CENTRE[1]
        distance = np.hypot(rows, columns) * image_size
        radius = INSERT_RADIUS * image_size
        objects = image[None].astype(np.float32)
        return Edge(objects, radius, distance, self.contrast_hu)

    def fits(self, window: Window) -> bool:
        """See ``Phantom``: the insert is not cut off."""
        return BACKGROUND_HU + self.contrast_hu <= window[1]

"""The phantom on which the sharpness of an edge is measured: a soft-tissue disk with an insert."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from physfed_ray.ct.attenuation import AIR_HU

BACKGROUND_HU = 40.0
BODY_RADIUS, INSERT_RADIUS = 0.42, 0.16
"""In sides of the image."""
INSERT_CENTRE = (0.0213, 0.0371)
"""Beside the image's centre, in sides of the image, so that no pixel grid is met twice."""
_SUPERSAMPLING = 8


@dataclass(frozen=True)
class Edge:
    """A phantom and where its edge is.

    Attributes:
        image: (n, n) float32 HU.
        radius: Radius of the insert in pixels.
        distance: Each pixel's distance from the insert's centre in pixels, (n, n).
        contrast_hu: Insert minus background.
    """

    image: NDArray[np.float32]
    radius: float
    distance: NDArray[np.float64]
    contrast_hu: float

    @property
    def body(self) -> NDArray[np.uint8]:
        """1 on the phantom, (n, n)."""
        return (self.image > (AIR_HU + BACKGROUND_HU) / 2).astype(np.uint8)


def edge_phantom(image_size: int, contrast_hu: float) -> Edge:
    """Return a soft-tissue disk in air with one round insert.

    Args:
        image_size: Side n in pixels.
        contrast_hu: Insert minus background, HU.
    """
    insert = _disk(image_size, INSERT_CENTRE, INSERT_RADIUS)
    body = _disk(image_size, (0.0, 0.0), BODY_RADIUS)
    image = AIR_HU + (BACKGROUND_HU - AIR_HU) * body + contrast_hu * insert
    axis = (np.arange(image_size) + 0.5) / image_size - 0.5
    rows, columns = axis[:, None] - INSERT_CENTRE[0], axis[None] - INSERT_CENTRE[1]
    distance = np.hypot(rows, columns) * image_size
    return Edge(image.astype(np.float32), INSERT_RADIUS * image_size, distance, contrast_hu)


def _disk(image_size: int, centre: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """Return the share of each pixel that a disk covers, (n, n)."""
    fine = image_size * _SUPERSAMPLING
    axis = (np.arange(fine) + 0.5) / fine - 0.5
    inside = (axis[:, None] - centre[0]) ** 2 + (axis[None] - centre[1]) ** 2 <= radius**2
    blocks = inside.reshape(image_size, _SUPERSAMPLING, image_size, _SUPERSAMPLING)
    return np.asarray(blocks.mean(axis=(1, 3)))

"""The experiment's image grid: find the body, centre it, resample, and normalise HU.

The protocols' field of view covers the circle inscribed in the grid, not the corners, so the body
is centred and shrunk into that circle and everything outside it is air (a body that sticks out of
the field of view costs a reconstruction some 25 dB). The table stays in the image, as in a scanner,
but is no part of the body.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from physfed_ray.ct.attenuation import inscribed_circle

AIR_HU = -1000.0
MARGIN_PIXELS = 1.5
"""Room between the body and the circle, for the blur of the resampling."""


@dataclass(frozen=True)
class GridSlice:
    """One slice on the experiment's grid.

    Attributes:
        image: (n, n) float32, HU; air outside the inscribed circle.
        body: (n, n) bool, True on the body; never outside the inscribed circle.
        scale: Factor at most 1 by which the slice was shrunk, beyond fitting its frame to the grid,
            so that the body lies within the inscribed circle.
    """

    image: np.ndarray
    body: np.ndarray
    scale: float


def to_grid(
    hu: np.ndarray,
    spacing_mm: tuple[float, float],
    image_size: int,
    centre: Literal["body", "image"],
) -> GridSlice:
    """Resample a slice to a square grid, its aspect ratio kept.

    Args:
        hu: (h, w), HU.
        spacing_mm: Distance between rows and between columns, mm.
        image_size: Pixels along each side of the grid, n.
        centre: ``"body"`` puts the centre of the body's smallest enclosing circle at the grid's
            centre and shrinks the slice until that circle fits; ``"image"`` fits the frame as it
            is, and what lies in its corners is cut off.
    """
    from physfed_ray.data.grid_body import body_mask, enclosing_circle  # SciPy: not for hosts

    spacing = np.asarray(spacing_mm, np.float64)
    extent = np.asarray(hu.shape) * spacing
    body = body_mask(hu, spacing_mm)
    middle, scale = extent / 2, 1.0
    pixel_mm = float(extent.max()) / image_size
    if centre == "body" and body.any():
        middle, radius = enclosing_circle(body, spacing)
        scale = min(1.0, (image_size / 2 - MARGIN_PIXELS) * pixel_mm / radius)
        pixel_mm /= scale
    rows, columns = (
        _resampling(hu.shape[axis], spacing[axis], image_size, pixel_mm, middle[axis])
        for axis in (0, 1)
    )
    above_air = rows @ (hu.astype(np.float32) - np.float32(AIR_HU)) @ columns.T
    inside = inscribed_circle(image_size)
    image = np.where(inside, above_air + np.float32(AIR_HU), np.float32(AIR_HU))
    on_grid = (rows @ body.astype(np.float32) @ columns.T > 0.5) & inside
    return GridSlice(image.astype(np.float32), on_grid, float(scale))


def _resampling(
    pixels: int, spacing_mm: float, image_size: int, pixel_mm: float, middle_mm: float
) -> np.ndarray:
    """Return the (image_size, pixels) matrix that resamples one axis about ``middle_mm``.

    Rows are triangles as wide as the coarser of the two grids: linear interpolation where the grid
    is finer, an anti-aliased average where it is coarser. Beyond the frame lies nothing, so weights
    are normalised before they are cut off at the frame's edge.
    """
    width = max(pixel_mm, spacing_mm)
    wanted = (np.arange(image_size) - (image_size - 1) / 2) * pixel_mm + middle_mm
    beyond = int(np.ceil(image_size * pixel_mm / spacing_mm)) + 2
    there = (np.arange(-beyond, pixels + beyond) + 0.5) * spacing_mm
    weights = np.maximum(0.0, 1.0 - np.abs(wanted[:, None] - there) / width)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return weights[:, beyond : beyond + pixels].astype(np.float32)

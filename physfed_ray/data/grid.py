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
        object: (N, N) float32, HU: what is scanned, on a grid N / n times as fine; air outside the
            inscribed circle.
        image: (n, n) float32, HU: its area mean on the experiment's grid; air outside the inscribed
            circle.
        body: (n, n) bool, True on the body; never outside the inscribed circle.
        scale: Factor at most 1 by which the slice was shrunk, beyond fitting its frame to the grid,
            so that the body lies within the inscribed circle.
    """

    object: np.ndarray
    image: np.ndarray
    body: np.ndarray
    scale: float


@dataclass(frozen=True)
class Placed:
    """A slice whose place on the experiment's grid is known.

    Attributes:
        hu: The slice, (h, w), HU.
        spacing_mm: Distance between its rows and between its columns, mm.
        body: (h, w) bool, True on the body.
        image_size: Pixels along each side of the grid, n.
        middle_mm: What becomes the middle of the grid, from the top left corner of the frame, mm.
        pixel_mm: Pixel length of the grid in the slice, mm.
        scale: As in ``GridSlice``.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float]
    body: np.ndarray
    image_size: int
    middle_mm: tuple[float, float]
    pixel_mm: float
    scale: float

    def resample(self, object_scale: int) -> GridSlice:
        """Resample the slice to the object's grid, and that to the experiment's.

        Args:
            object_scale: Pixels of the object along one pixel of the grid, N / n.
        """
        above_air = self._at(self.hu.astype(np.float32) - np.float32(AIR_HU), object_scale)
        air = np.float32(AIR_HU)
        scanned = np.where(inscribed_circle(len(above_air)), above_air + air, air)
        inside = inscribed_circle(self.image_size)
        image = np.where(inside, area_mean(scanned, object_scale), air)
        body = (self._at(self.body.astype(np.float32), 1) > 0.5) & inside
        return GridSlice(scanned, image, body, self.scale)

    def _at(self, values: np.ndarray, object_scale: int) -> np.ndarray:
        size, pixel_mm = self.image_size * object_scale, self.pixel_mm / object_scale
        rows, columns = (
            _resampling(
                values.shape[axis], self.spacing_mm[axis], size, pixel_mm, self.middle_mm[axis]
            )
            for axis in (0, 1)
        )
        resampled: np.ndarray = rows @ values @ columns.T
        return resampled


def place(
    hu: np.ndarray,
    spacing_mm: tuple[float, float],
    image_size: int,
    centre: Literal["body", "image"],
) -> Placed:
    """Find the place of a slice on a square grid, its aspect ratio kept.

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
        scale = float(min(1.0, (image_size / 2 - MARGIN_PIXELS) * pixel_mm / radius))
        pixel_mm /= scale
    row, column = (float(value) for value in middle)
    return Placed(hu, spacing_mm, body, image_size, (row, column), pixel_mm, scale)


def to_grid(
    hu: np.ndarray,
    spacing_mm: tuple[float, float],
    image_size: int,
    centre: Literal["body", "image"],
    object_scale: int = 1,
) -> GridSlice:
    """Resample a slice to a square grid, its aspect ratio kept.

    Args:
        hu: As in ``place``.
        spacing_mm: As in ``place``.
        image_size: As in ``place``.
        centre: As in ``place``.
        object_scale: As in ``Placed.resample``.
    """
    return place(hu, spacing_mm, image_size, centre).resample(object_scale)


def area_mean(fine: np.ndarray, scale: int) -> np.ndarray:
    """Return what pixels ``scale`` times as long hold of an object, (N, N) -> (n, n).

    The object is the function that linear interpolation makes of its samples, because that is what
    the rays of ``ct.operator.FanBeam`` read; so a pixel's mean has an eighth of the samples beyond
    its edges. The samples themselves where ``scale`` is 1.
    """
    if scale == 1:
        return fine
    for axis in (0, 1):
        padded = np.pad(fine, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        before, after = (np.take(padded, range(k, k + len(fine)), axis) for k in (0, 2))
        fine = fine + (before - 2 * fine + after) / 8
    n = len(fine) // scale
    mean: np.ndarray = fine.reshape(n, scale, n, scale).mean(axis=(1, 3))
    return mean


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

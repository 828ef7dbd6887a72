"""The grid on which a network sees a series, whatever the series' matrix and pixels are.

A network is convolutional and was trained on images whose noise is correlated over about a pixel:
the reconstruction kernel follows the grid. A scanner's own images are like that at their own
pixels, so that the rule ``own`` shows the network the series as it is; ``trained`` resamples it to
the pixel length of the run's grid first. ``docs/denoise.md`` has the measurement.

Either way only what the network changed, its residual, goes back to the series: a network that
changes nothing gives the series back as it was.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from physfed_ray.errors import PhysFedError

Rule = Literal["own", "trained"]
RULES: tuple[Rule, ...] = get_args(Rule)

EQUAL_LENGTHS = 1e-3
"""Pixels whose lengths differ by less than this part are of one length."""
MARGIN_PIXELS = 10
"""What RED-CNN looks at around a pixel of its deepest features; reflected at the frame's edge."""
SMALLEST_SIDE = 48
"""Every backbone can see an image of so many pixels along each side."""


@dataclass(frozen=True)
class NetworkGrid:
    """Where the pixels of a series lie on a square image of square pixels.

    Attributes:
        rows: (H, h) float32, resamples along the rows' axis; None: as they are.
        columns: (W, w) float32, likewise.
        back_rows: (h, H) float32, the way back.
        back_columns: (w, W) float32.
        shape: H and W.
        pixel_mm: Length of a pixel.
    """

    rows: np.ndarray | None
    columns: np.ndarray | None
    back_rows: np.ndarray | None
    back_columns: np.ndarray | None
    shape: tuple[int, int]
    pixel_mm: float

    @property
    def side(self) -> int:
        """Pixels along each side of what the network sees."""
        return max(SMALLEST_SIDE, max(self.shape) + 2 * MARGIN_PIXELS)

    def there(self, images: np.ndarray) -> np.ndarray:
        """Return what the network sees of N images, (N, h, w) -> (N, side, side) float32."""
        seen = _along(images, self.rows, self.columns)
        widths = [(start, self.side - size - start) for start, size in self._place()]
        return np.pad(seen, ((0, 0), *widths), mode="reflect")

    def back(self, residual: np.ndarray) -> np.ndarray:
        """Return a residual at the pixels of the series, (N, side, side) -> (N, h, w) float32."""
        (top, height), (left, width) = self._place()
        inner = residual[:, top : top + height, left : left + width]
        return _along(inner, self.back_rows, self.back_columns)

    def _place(self) -> list[tuple[int, int]]:
        return [((self.side - size) // 2, size) for size in self.shape]


def network_grid(
    shape: tuple[int, int], spacing_mm: tuple[float, float], rule: Rule, trained_mm: float
) -> NetworkGrid:
    """Return the grid for images of a matrix.

    Args:
        shape: Rows and columns of the images.
        spacing_mm: Distance between rows and between columns.
        rule: ``own``: the images' own pixels, the shorter of the two lengths where they are not
            square; ``trained``: pixels as long as those of the run's grid.
        trained_mm: Length of a pixel of the run's grid.

    Raises:
        PhysFedError: The spacing or the rule is none, or the grid would be huge.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (2,) or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise PhysFedError(
            "the spacing must be two lengths in mm, between rows and between columns, and not "
            f"{str(spacing_mm)[:40]}"
        )
    if rule not in RULES:
        raise PhysFedError(f"unknown rule '{rule}'; there are: {', '.join(RULES)}")
    pixel_mm = float(spacing.min()) if rule == "own" else trained_mm
    sizes, there, back = [], [], []
    for pixels, mm in zip(shape, spacing.tolist(), strict=True):
        if abs(mm / pixel_mm - 1) < EQUAL_LENGTHS:
            size, forth, home = pixels, None, None
        else:
            size = max(1, round(pixels * mm / pixel_mm))
            _check_size(size, pixels, mm, pixel_mm)
            forth = _resampling(pixels, mm, size, pixel_mm)
            home = _resampling(size, pixel_mm, pixels, mm)
        sizes.append(size)
        there.append(forth)
        back.append(home)
    return NetworkGrid(*there, *back, (sizes[0], sizes[1]), pixel_mm)


LARGEST_SIDE = 8192


def _check_size(size: int, pixels: int, spacing_mm: float, pixel_mm: float) -> None:
    if size > LARGEST_SIDE:
        raise PhysFedError(
            f"{pixels} pixels of {spacing_mm:g} mm would become {size} of {pixel_mm:g} mm: correct "
            "the spacing"
        )


def _along(images: np.ndarray, rows: np.ndarray | None, columns: np.ndarray | None) -> np.ndarray:
    out = images if rows is None else rows @ images
    out = out if columns is None else out @ columns.T
    return np.asarray(out, np.float32)


def _resampling(pixels: int, spacing_mm: float, size: int, pixel_mm: float) -> np.ndarray:
    """Return the (size, pixels) matrix that resamples one axis about its middle.

    Rows are triangles as wide as the coarser of the two grids, as in ``data.grid``; but beyond the
    frame its edge goes on.
    """
    width = max(pixel_mm, spacing_mm)
    wanted = (np.arange(size) - (size - 1) / 2) * pixel_mm
    there = (np.arange(pixels) - (pixels - 1) / 2) * spacing_mm
    inside = np.clip(wanted, there[0], there[-1])
    weights = np.maximum(0.0, 1.0 - np.abs(inside[:, None] - there) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)

"""One slice as every method leaves it: whole, zoomed into a region, and its error.

The windows are those of Yang et al. 2025, fig. 4 and 6: [-160, 240] HU, and [-1024, 200] HU for the
slice of the chest. The region is chosen from the full dose alone, so that no method is favoured.
"""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, uniform_filter

from physfed_ray.pages.figures import styled
from physfed_ray.pages.pictures import (
    ERROR_HU,
    SOFT_TISSUE_HU,
    Panel,
    caption_of,
)
from physfed_ray.pages.sheet import FOOT_INCHES, Sheet
from physfed_ray.window import Window

CHEST_HU: Window = (-1024.0, 200.0)
ZOOM = 4
COLUMNS = 8
_LUNG_HU = -500.0  # between lung, about -800, and every other tissue
_LUNG_SHARE = 0.1  # of the body's area: less is the lungs' base above an abdomen, or bowel gas
_INCHES = 1.4  # side of an image
_GAP = 0.05
_TEXT = 0.14  # a line of a heading
_HEAD = 0.28
_LETTERS = 19  # what a column holds of the headings


def paper_window(full: NDArray[np.float32]) -> Window:
    """Return the paper's window for a slice: the wide one where it shows lungs.

    Args:
        full: Full dose, (n, n) float32 HU.
    """
    tissue = full > _LUNG_HU
    body = binary_fill_holes(tissue)
    lung = float((body & ~tissue).sum())
    return CHEST_HU if lung > _LUNG_SHARE * max(1, int(body.sum())) else SOFT_TISSUE_HU


def detailed_region(full: NDArray[np.float32], window: Window) -> tuple[int, int, int]:
    """Return row, column and side of the square in which the window shows most detail.

    Detail is the mean gradient over pixels that are neither black nor white in the window; edges
    to what is black or white would lead to the skin and to bone, where all methods look alike.

    Args:
        full: Full dose, (n, n) float32 HU.
        window: What black and white stand for, HU.
    """
    n, side = len(full), max(2, len(full) // ZOOM)
    grey = (full > window[0]) & (full < window[1])
    gradient = np.hypot(*np.gradient(full.astype(np.float64)))
    smooth = np.where(grey, np.minimum(gradient, (window[1] - window[0]) / 4), 0.0)
    share = uniform_filter(grey.astype(np.float64), side, mode="constant")
    detail = uniform_filter(smooth, side, mode="constant") * share**2
    half = side // 2
    inside = detail[half : n - side + half + 1, half : n - side + half + 1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(row), int(column), side


@styled
def zoomed_panels(
    panel: Panel, headings: Sequence[str], window: Window, error_hu: float = ERROR_HU
) -> Figure:
    """Draw the full dose and every image: whole, the framed region enlarged, and the error.

    Args:
        panel: A slice and its images, as many as there are headings.
        headings: Names of the images.
        window: What black and white stand for, HU.
        error_hu: Error in HU at the ends of the colour scale.
    """
    titles = [textwrap.fill(t, _LETTERS, break_on_hyphens=False) for t in ("Full dose", *headings)]
    images = [panel.full, *panel.images]
    lines = math.ceil(len(images) / COLUMNS)
    columns = math.ceil(len(images) / lines)
    titles_high = _TEXT * max(title.count("\n") + 1 for title in titles) + _GAP
    line_high = titles_high + 3 * (_INCHES + _GAP)
    sheet = Sheet(columns * (_INCHES + _GAP), _HEAD + lines * line_high + FOOT_INCHES)
    low, high = window
    sheet.write(f"{panel.label}, {low:g} to {high:g} HU", (0.03, _HEAD - _GAP), 10, "left")
    region = detailed_region(panel.full, window)
    for k, (title, image) in enumerate(zip(titles, images, strict=True)):
        line, column = divmod(k, columns)
        x = _GAP / 2 + column * (_INCHES + _GAP)
        y = _HEAD + line * line_high + titles_high
        sheet.write(title, (x + _INCHES / 2, y - _GAP), 8)
        _show_method(sheet, image, panel.full if k else None, (x, y), window, region, error_hu)
    sheet.error_bar(error_hu)
    return sheet.figure


def _show_method(
    sheet: Sheet,
    image: NDArray[np.float32],
    full: NDArray[np.float32] | None,
    corner: tuple[float, float],
    window: Window,
    region: tuple[int, int, int],
    error_hu: float,
) -> None:
    """Draw an image, its region and, unless it is the full dose itself, its error."""
    x, y = corner
    row, column, side = region
    pixel = _INCHES / len(image)
    sheet.show(image, (x, y), _INCHES, window, "gray")
    sheet.frame((x + column * pixel, y + row * pixel), side * pixel)
    below = y + _INCHES + _GAP
    zoomed = image[row : row + side, column : column + side]
    sheet.show(zoomed, (x, below), _INCHES, window, "gray")
    sheet.frame((x, below), _INCHES)
    if full is not None:
        sheet.caption(caption_of(image, full, window), (x, y), _INCHES, 7.5)
        error = (x, below + _INCHES + _GAP)
        sheet.show(image - full, error, _INCHES, (-error_hu, error_hu), "RdBu_r")

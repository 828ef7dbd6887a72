"""Panels of CT slices with their errors, in HU windows."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from physfed_ray.metrics.base import Context
from physfed_ray.metrics.pixelwise import Psnr
from physfed_ray.pages.figures import styled
from physfed_ray.pages.sheet import FOOT_INCHES, Sheet, text_inches
from physfed_ray.window import Window

SOFT_TISSUE_HU: Window = (-160.0, 240.0)
ERROR_HU = 100.0
_PANEL_INCHES, _SAMPLE_INCHES = 1.82, 1.27
_LEAST_INCHES = 4.0
_GAP = 0.03
_FONT = 9.0


@dataclass(frozen=True)
class Panel:
    """One row of a picture.

    Attributes:
        label: Whose slice it is.
        full: Full dose, (n, n) float32 HU.
        images: The columns to compare with it, such as the low dose, same shape, HU.
    """

    label: str
    full: NDArray[np.float32]
    images: tuple[NDArray[np.float32], ...]


@styled
def sample_slices(panels: Sequence[Panel], window: Window = SOFT_TISSUE_HU) -> Figure:
    """Draw the full dose above the low dose, one column a client.

    Args:
        panels: One a client; the first of its images is the low dose.
        window: What black and white stand for, HU.
    """
    left, side = text_inches(1, _FONT) + _GAP, _SAMPLE_INCHES
    top = _high(panel.label for panel in panels)
    step = side + _GAP
    width = max(left + len(panels) * step, _LEAST_INCHES)
    sheet = Sheet(width, top + 2 * step)
    for row, name in enumerate(("full dose", "low dose")):
        sheet.write_upwards(name, (left - _GAP, top + row * step + side / 2), _FONT)
    for k, panel in enumerate(panels):
        x = left + k * step
        sheet.write(panel.label, (x + side / 2, top - _GAP), _FONT)
        sheet.show(panel.full, (x, top), side, window, "gray")
        sheet.show(panel.images[0], (x, top + step), side, window, "gray")
    return sheet.figure


@styled
def denoised_panels(
    panels: Sequence[Panel],
    headings: Sequence[str],
    window: Window = SOFT_TISSUE_HU,
    error_hu: float = ERROR_HU,
) -> Figure:
    """Draw every image beside the full dose, and the errors beside them.

    Each row holds the full dose, the images, then the images minus the full dose; every image
    carries its PSNR in the displayed window.

    Args:
        panels: One row each; all have as many images as there are headings.
        headings: Names of the images.
        window: What black and white stand for, HU.
        error_hu: Error in HU at the ends of the colour scale.
    """
    count, side, step = len(headings), _PANEL_INCHES, _PANEL_INCHES + _GAP
    left = _high(panel.label for panel in panels)
    titles = _titles(headings)
    top = _high(titles)
    sheet = Sheet(left + step * len(titles), top + step * len(panels) + FOOT_INCHES)
    for k, title in enumerate(titles):
        sheet.write(title, (left + k * step + side / 2, top - _GAP), _FONT)
    for row, panel in enumerate(panels):
        y = top + row * step
        sheet.write_upwards(panel.label, (left - _GAP, y + side / 2), _FONT)
        sheet.show(panel.full, (left, y), side, window, "gray")
        for k, image in enumerate(panel.images, start=1):
            corner = left + k * step, y
            sheet.show(image, corner, side, window, "gray")
            sheet.caption(caption_of(image, panel.full, window), corner, side, 8)
            error = left + (k + count) * step, y
            sheet.show(image - panel.full, error, side, (-error_hu, error_hu), "RdBu_r")
    sheet.error_bar(error_hu)
    return sheet.figure


def _high(texts: Iterable[str]) -> float:
    """Return the inches that the text with the most lines takes, and a gap."""
    return text_inches(max(text.count("\n") + 1 for text in texts), _FONT) + 2 * _GAP


def _titles(headings: Sequence[str]) -> list[str]:
    names = [_wrapped(h) for h in headings]
    return [
        "Full dose",
        *names,
        *(f"error of\n{h.lower() if h == 'Low dose' else h}" for h in names),
    ]


def _wrapped(title: str) -> str:
    """Break a long heading, so that columns stay narrow."""
    return textwrap.fill(title, 22, break_on_hyphens=False)


def caption_of(image: NDArray[np.float32], full: NDArray[np.float32], window: Window) -> str:
    """Return the PSNR of an image in the displayed window."""
    return f"{Psnr()(image[None], full[None], Context(window))[0]:.1f} {Psnr.unit}"

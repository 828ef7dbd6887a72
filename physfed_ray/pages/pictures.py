"""Panels of CT slices with their errors, in HU windows."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from physfed_ray.metrics.base import Context, Window
from physfed_ray.metrics.pixelwise import Psnr
from physfed_ray.pages.figures import new_figure, styled

SOFT_TISSUE_HU: Window = (-160.0, 240.0)
ERROR_HU = 100.0
_PANEL_INCHES = 1.85


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
    columns = len(panels)
    figure = new_figure(1.33 * max(columns, 3), 3.1)
    axes = _picture_axes(figure, 2, columns)
    for k, panel in enumerate(panels):
        _show(axes[0, k], panel.full, window)
        _show(axes[1, k], panel.images[0], window)
        axes[0, k].set_title(panel.label, fontsize=9, loc="center")
    axes[0, 0].set_ylabel("full dose", fontsize=9)
    axes[1, 0].set_ylabel("low dose", fontsize=9)
    return figure


@styled
def denoised_panels(
    panels: Sequence[Panel],
    headings: Sequence[str],
    window: Window = SOFT_TISSUE_HU,
    error_hu: float = ERROR_HU,
) -> Figure:
    """Draw every image beside the full dose, and the errors below or beside them.

    Each row holds the full dose, the images, then the images minus the full dose; every image
    carries its PSNR in the displayed window.

    Args:
        panels: One row each; all have as many images as there are headings.
        headings: Names of the images.
        window: What black and white stand for, HU.
        error_hu: Error in HU at the ends of the colour scale.
    """
    count = len(headings)
    width = _PANEL_INCHES * (1 + 2 * count)
    figure = new_figure(width + 0.5, (_PANEL_INCHES + 0.02) * len(panels) + 0.75)
    axes = _picture_axes(figure, len(panels), 1 + 2 * count)
    for ax, title in zip(axes[0], _titles(headings), strict=True):
        ax.set_title(title, fontsize=9, loc="center")
    for row, panel in zip(axes, panels, strict=True):
        row[0].set_ylabel(panel.label, fontsize=9)
        _show(row[0], panel.full, window)
        for k, image in enumerate(panel.images):
            _show(row[1 + k], image, window, caption_of(image, panel.full, window))
            _show_error(row[1 + count + k], image - panel.full, error_hu)
    _error_bar(figure, axes, error_hu)
    return figure


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


def _picture_axes(figure: Figure, rows: int, columns: int) -> NDArray[np.object_]:
    """Return (rows, columns) axes without ticks or frames, close together."""
    axes = np.asarray(figure.subplots(rows, columns, squeeze=False))
    figure.set_layout_engine("compressed", w_pad=0.01, h_pad=0.02, wspace=0.0, hspace=0.0)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        for side in ax.spines.values():
            side.set_visible(False)
    return axes


def _show(ax: Axes, hu: NDArray[np.float32], window: Window, caption: str = "") -> None:
    """Show an image in HU from black to white, with a caption in its corner."""
    ax.imshow(hu, cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")
    if caption:
        ax.text(
            0.97, 0.03, caption, transform=ax.transAxes, ha="right", va="bottom", fontsize=8,
            color="white", bbox={"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0},
        )  # fmt: skip


def _show_error(ax: Axes, error: NDArray[np.float32], limit: float) -> None:
    """Show an error in HU, blue below 0 and red above."""
    ax.imshow(error, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")


def _error_bar(figure: Figure, axes: NDArray[np.object_], limit: float) -> None:
    """Put the scale of the errors below the axes."""
    scale = ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    bar = figure.colorbar(
        scale, ax=axes.ravel().tolist(), orientation="horizontal", fraction=0.03, aspect=50,
        shrink=0.5, pad=0.01,
    )  # fmt: skip
    bar.set_label("image minus full dose (HU)", fontsize=9)
    bar.ax.tick_params(labelsize=8)

"""Many images on one pair of axes, placed in inches.

One pair of axes for each image would take most of the time of a page, and a layout engine the rest.
"""

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from physfed_ray.pages.figures import PALETTE, new_figure
from physfed_ray.window import Window

FOOT_INCHES = 0.65
"""What the scale of the errors takes at the foot."""
LINE = 1.25
"""Height of a line of text over its font size."""
_FRAME = PALETTE[4]
_POINTS = 72  # an inch
_WIDEST = 5.0  # inches of the scale of the errors


class Sheet:
    """A figure of images and texts, in inches from its upper left corner.

    Args:
        width: Inches.
        height: Inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure = new_figure(width, height, placed=True)
        self._size = width, height
        self.ax = self.figure.add_axes((0, 0, 1, 1))
        self.ax.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self.ax.axis("off")

    def show(
        self,
        image: NDArray[np.float32],
        corner: tuple[float, float],
        side: float,
        scale: Window,
        colours: str,
    ) -> None:
        """Draw an image (n, n) as a square whose colours span a scale."""
        x, y = corner
        self.ax.imshow(
            image, cmap=colours, vmin=scale[0], vmax=scale[1], interpolation="nearest",
            extent=(x, x + side, y + side, y), aspect="auto",
        )  # fmt: skip

    def frame(self, corner: tuple[float, float], side: float) -> None:
        """Draw a square's outline."""
        self.ax.add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor=_FRAME, linewidth=0.9)
        )

    def write(
        self, text: str, place: tuple[float, float], size: float, align: str = "center"
    ) -> None:
        """Write text above a place."""
        self.ax.text(*place, text, fontsize=size, ha=align, va="bottom", color="#222222")

    def write_upwards(self, text: str, place: tuple[float, float], size: float) -> None:
        """Write text from below to above, its lines left of a place, its middle at its height."""
        self.ax.text(
            *place, text, fontsize=size, ha="right", va="center", rotation=90, color="#222222",
            multialignment="center",
        )  # fmt: skip

    def caption(self, text: str, corner: tuple[float, float], side: float, size: float) -> None:
        """Write a caption into the lower right corner of an image."""
        box = {"facecolor": "black", "alpha": 0.6, "pad": 1.2, "linewidth": 0}
        x, y = corner[0] + 0.97 * side, corner[1] + 0.97 * side
        self.ax.text(x, y, text, ha="right", va="bottom", fontsize=size, color="white", bbox=box)

    def error_bar(self, limit: float) -> None:
        """Draw the scale of the errors at the foot."""
        width, height = self._size
        long = min(_WIDEST, 0.8 * width)
        place = ((1 - long / width) / 2, 0.42 / height, long / width, 0.12 / height)
        bar = self.figure.add_axes(place)
        shades = np.linspace(-limit, limit, 256)[None]
        bar.imshow(shades, cmap="RdBu_r", extent=(-limit, limit, 0, 1), aspect="auto")
        bar.set(yticks=[])
        bar.grid(visible=False)
        bar.spines[["top", "right"]].set_visible(True)
        bar.set_xlabel("image minus full dose (HU)", fontsize=8.5, labelpad=1)
        bar.tick_params(labelsize=8, pad=1)


def text_inches(lines: int, size: float) -> float:
    """Return the height of some lines of text of a font size in points."""
    return lines * LINE * size / _POINTS

"""The gain of every client over its input, one dot a client: for more clients than tables show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from physfed_ray.pages.figures import GREY, new_figure, styled
from physfed_ray.results.runs import ClientEntry
from physfed_ray.results.summaries import gains
from physfed_ray.results.tables import ScoreTable, TableRow, nan_mean

_COLOURS = {"photons": "photons per ray", "views": "views"}


@dataclass(frozen=True)
class GainPanel:
    """One panel.

    Attributes:
        title: What stands above it.
        row: The method.
        colour: The number of the protocol that colours the dots, a key of ``_COLOURS``.
    """

    title: str
    row: TableRow
    colour: str = "photons"


@styled
def gain_figure(
    table: ScoreTable, entries: Sequence[ClientEntry], panels: Sequence[GainPanel]
) -> Figure:
    """Draw PSNR minus that of the input against that of the input.

    Args:
        table: PSNR in dB as its first metric, the input first.
        entries: The table's clients in its order.
        panels: What to draw, on common axes.
    """
    before = nan_mean(table.rows[0].values, 0)[:, 0]
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(10.75, 3.7 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax, panel in zip(axes.ravel(), panels, strict=False):
        colour: NDArray[np.float64] = np.array([e.protocol[panel.colour] for e in entries])
        norm = LogNorm(colour.min(), colour.max())
        gain = gains(table, panel.row)
        dots = ax.scatter(before, gain, c=colour, norm=norm, cmap="viridis", s=16, zorder=3)
        ax.axhline(0, color=GREY, linewidth=1.2, zorder=2)
        ax.set(title=panel.title, xlabel="PSNR of the input (dB)")
        figure.colorbar(dots, ax=ax, label=_COLOURS[panel.colour])
    for ax in axes[:, 0]:
        ax.set_ylabel("gain (dB)")
    for ax in axes.ravel()[len(panels) :]:
        ax.set_visible(False)
    return figure

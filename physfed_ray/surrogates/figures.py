"""Figures of a surrogate study: curves over beta, and one slice over beta."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physfed_ray.pages.figures import GREY, PALETTE, new_figure, styled
from physfed_ray.pages.sheet import Sheet, text_inches
from physfed_ray.surrogates.file import SurrogateFile
from physfed_ray.surrogates.rows import ATTACK, Rows
from physfed_ray.surrogates.tables import (
    CONTROLS,
    CORRELATIONS,
    SHARES,
    betas_of,
    mean_and_spread,
)

ROWS = {
    "surrogate": "surrogate",
    "unet": "U-Net's\ninversion",
    "ridge": "ridge's\ninversion",
}
"""Images of one slice that change with beta."""
_SIDE, _GAP, _FONT = 1.4, 0.04, 9.0


@styled
def curves(file: SurrogateFile, rows: Rows) -> Figure:
    """Draw accuracy, re-identification and inversion over beta, one panel each."""
    figure = new_figure(11.4, 3.5)
    diagnosis, identity, likeness = figure.subplots(1, 3)
    for k, task in enumerate(file.tasks):
        _curve(diagnosis, file, rows, task, "accuracy", f"{task}, surrogates", PALETTE[k], 100)
        own = rows.over_seeds(file.seeds, task, None, "accuracy")
        _level(diagnosis, own, f"{task}, own images", PALETTE[k], "--", 100)
        luck = rows.over_seeds(file.seeds, task, 0.0, "chance")
        _level(diagnosis, luck, "chance", PALETTE[k], ":", 100)
    for k, (measure, label) in enumerate(SHARES.items()):
        _curve(identity, file, rows, ATTACK, measure, label, PALETTE[k], 100)
    guess = rows.over_seeds(file.seeds, ATTACK, 0.0, "reid_chance")
    _level(identity, guess, "chance", GREY, ":", 100)
    for k, (measure, label) in enumerate(CORRELATIONS.items()):
        _curve(likeness, file, rows, ATTACK, measure, label, PALETTE[k], 1)
    for style, (measure, label) in zip((":", "-.", "--"), CONTROLS.items(), strict=True):
        _level(likeness, rows.over_seeds(file.seeds, ATTACK, 0.0, measure), label, GREY, style, 1)
    for ax, title, unit in (
        (diagnosis, "Diagnosis", "balanced accuracy (%)"),
        (identity, "Whose is it?", "right patient, nearest slice (%)"),
        (likeness, "What did it look like?", "correlation with the patient"),
    ):
        ax.set(xlabel="beta (0: host alone)", ylabel=unit, title=title)
        ax.set_ylim(0, 1.02 if ax is likeness else 102)
        ax.legend(fontsize=7.5, loc="lower right" if ax is likeness else "best")
    return figure


def _curve(
    ax: Axes,
    file: SurrogateFile,
    rows: Rows,
    task: str,
    measure: str,
    label: str,
    colour: str,
    scale: float,
) -> None:
    """Draw means over seeds with their standard deviations."""
    betas = betas_of(file)
    found = [mean_and_spread(rows.over_seeds(file.seeds, task, b, measure)) for b in betas]
    means, spreads = (scale * np.array(column) for column in zip(*found, strict=True))
    ax.errorbar(
        betas, means, spreads, color=colour, marker="o", markersize=4, capsize=2, label=label
    )


def _level(
    ax: Axes, values: Sequence[float], label: str, colour: str, style: str, scale: float
) -> None:
    """Draw a mean over seeds that is the same at every beta."""
    if values:
        mean, _ = mean_and_spread(values)
        ax.axhline(scale * mean, color=colour, linestyle=style, linewidth=1.2, label=label)


@styled
def one_slice(examples: Mapping[float, Mapping[str, np.ndarray]]) -> Figure:
    """Draw the surrogate of one slice and its inversions over beta, host and patient on the left.

    Args:
        examples: Images (n, n) by beta and name: ``patient``, ``host`` and those of ``ROWS``.
    """
    betas = sorted(examples)
    step, left, top = _SIDE + _GAP, text_inches(2, _FONT) + _GAP, text_inches(1, _FONT) + 0.05
    sheet = Sheet(left + step * (len(betas) + 1) + 0.15, top + step * len(ROWS) + 0.05)
    first = examples[betas[0]]
    for row, name in enumerate(("host", "patient")):
        corner = left, top + row * step
        sheet.show(first[name], corner, _SIDE, (0.0, 1.0), "gray")
        sheet.caption(name, corner, _SIDE, 8)
    for row, label in enumerate(ROWS.values()):
        sheet.write_upwards(label, (left - _GAP, top + (row + 0.5) * step), _FONT)
    for column, beta in enumerate(betas, start=1):
        x = left + column * step + 0.15
        sheet.write(f"beta {beta:g}", (x + _SIDE / 2, top - _GAP), _FONT)
        for row, name in enumerate(ROWS):
            image = examples[beta][name]
            sheet.show(image, (x, top + row * step), _SIDE, (0.0, 1.0), "gray")
    return sheet.figure

"""Figures with one line or box a method: Yang et al. 2025, fig. 5, and the courses of training.

A method keeps its colour and dash in all of them. Within a part of the tables (generic,
personalised, bounds) no two of the first seven methods share a colour; the parts differ by dash.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from physfed_ray.pages.figures import GREY, PALETTE, new_figure, styled
from physfed_ray.results.compare_courses import Course
from physfed_ray.results.run_tables import WHOLE

_COLOURS = PALETTE[:7]  # the eighth, yellow, is too pale for a line
_DASHES = {"generic": "--", "personalised": "-", "bound": ":"}
_BANDS = 8  # methods whose bands can be told apart
_LEGEND_LETTERS = 120  # what a line of the legend holds
_LABEL_LETTERS = 26
_LOG_FROM = 10.0  # ratio of the ends of two curves from which their axis is logarithmic


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn: a colour, a dash and, from its part's eighth method on, a marker."""

    colour: str
    dash: str
    marker: str = ""


INPUT_STYLE = MethodStyle(GREY, "-")


def method_styles(kinds: Mapping[str, str]) -> dict[str, MethodStyle]:
    """Give every method a look of its own.

    Args:
        kinds: For each label "generic", "personalised" or "bound", in the order of the tables.
    """
    styles: dict[str, MethodStyle] = {}
    for kind in dict.fromkeys(kinds.values()):
        members = [label for label, own in kinds.items() if own == kind]
        for k, label in enumerate(members):
            turn, place = divmod(k, len(_COLOURS))
            marker = ("", "o", "s", "^", "D", "v")[turn % 6]
            styles[label] = MethodStyle(_COLOURS[place], _DASHES[kind], marker)
    return styles


@styled
def method_boxes(
    panels: Mapping[str, Mapping[str, NDArray[np.float64]]], styles: Mapping[str, MethodStyle]
) -> Figure:
    """Draw the spread over all slices, one box a method and one panel a metric.

    Args:
        panels: Heading of a metric, then method, then its values, (slices,).
        styles: The look of each method; others are grey.
    """
    count = max(len(methods) for methods in panels.values())
    figure = new_figure(10.75, 0.9 + 0.3 * count)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (heading, methods) in zip(axes, panels.items(), strict=True):
        finite = [values[np.isfinite(values)] for values in methods.values()]
        boxes = ax.boxplot(
            finite, orientation="horizontal", widths=0.65, patch_artist=True,
            medianprops={"color": "black"},
            flierprops={"marker": ".", "markersize": 2.5, "markeredgecolor": GREY},
        )  # fmt: skip
        names = [textwrap.fill(m, _LABEL_LETTERS, break_on_hyphens=False) for m in methods]
        for box, label in zip(boxes["boxes"], methods, strict=True):
            colour = styles.get(label, INPUT_STYLE).colour
            box.set(facecolor=colour, alpha=0.75, edgecolor="#333333")
        ax.set_yticks(range(1, len(methods) + 1), names)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(heading)
    axes[0].invert_yaxis()  # shared: the first method is at the top of every panel
    return figure


@styled
def training_courses(
    courses: Mapping[str, Course], styles: Mapping[str, MethodStyle], split: str
) -> Figure:
    """Draw each metric against rounds, bytes and time: a row a metric, a line a method.

    A band holds one standard deviation over seeds, unless there are so many methods that bands
    would hide each other. What sends nothing is a level line against bytes, at its last score.

    Args:
        courses: One a method, all with the same metrics.
        styles: The look of each method.
        split: Whose scores they are.
    """
    headings = {column.metric: column.labelled for column in WHOLE}
    metrics = list(next(iter(courses.values())).scores)
    in_a_line = max(1, min(7, _LEGEND_LETTERS // (6 + max(map(len, courses)))))
    legend_lines = math.ceil(len(courses) / in_a_line)
    figure = new_figure(10.75, 3.1 * len(metrics) + 0.22 * legend_lines)
    bands = len(courses) <= _BANDS
    axes = figure.subplots(len(metrics), 3, squeeze=False, sharey="row")
    for row, metric in zip(axes, metrics, strict=True):
        for label, course in courses.items():
            for ax, x in zip(row, (course.rounds, course.sent, course.seconds), strict=True):
                _draw(ax, label, x, course.scores[metric], styles[label], bands)
        row[0].set_ylabel(headings[metric])
    names = ("round", "MB sent, both ways, all clients", "training time (s)")
    for ax, name in zip(axes[-1], names, strict=True):
        ax.set_xlabel(name)
    for ax in axes[:, 0]:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    for column, ends in ((1, [c.sent[-1] for c in courses.values()]),
                         (2, [c.seconds[-1] for c in courses.values()])):  # fmt: skip
        _choose_scale(list(axes[:, column]), ends)
    axes[0, 0].set_title(f"Mean of the clients, {split} patients")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=in_a_line)
    return figure


def _draw(
    ax: Axes,
    label: str,
    x: NDArray[np.float64],
    score: tuple[NDArray[np.float64], NDArray[np.float64]],
    style: MethodStyle,
    band: bool,
) -> None:
    mean, spread = score
    look: dict[str, Any] = {
        "color": style.colour,
        "linestyle": style.dash,
        "linewidth": 1.6,
        "label": label,
    }
    if x[-1] == 0:
        ax.axhline(mean[-1], **look)
        return
    marker = style.marker or ("x" if len(x) < 3 else "")
    ax.plot(x, mean, marker=marker, markersize=4, **look)
    if band:
        low, high = mean - spread, mean + spread
        ax.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)


def _choose_scale(axes: Sequence[Axes], ends: Sequence[float]) -> None:
    """Make an axis logarithmic where methods' totals lie far apart."""
    sent = [end for end in ends if end > 0]
    if sent and max(sent) > _LOG_FROM * min(sent):
        for ax in axes:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())

"""Place the panels of a figure by the length of their words.

Matplotlib's own layout engines measure every text of a figure twice, which takes longer than to
draw it. Here the labels of the ticks are counted in letters, and all else has its fixed place.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

LETTER_INCHES = 0.09
"""A digit at the font size of the ticks, 10 points, with some room."""
_GAP, _BAR, _BAR_SHARE, _BAR_LETTERS = 0.2, 0.2, 0.85, 5
"""Of the scale of colours: inches from the panel, width, share of its height, letters."""
_TICK, _LINE, _EDGE = 0.14, 0.2, 0.07
"""Inches from the axes to the labels of their ticks, of a line of text, and to the edge."""


def place_panels(
    figure: Figure, rows: Sequence[Sequence[Axes]], *, right: float = 0.0, below: float = 0.0
) -> None:
    """Give every panel an equal share of the figure, less the room of its words.

    Panels of a column begin at the same place, and those of a row are equally high. Call it when
    all is drawn: the ticks must be known.

    Args:
        figure: The figure.
        rows: Its panels; the last row may be shorter.
        right: Inches that each panel keeps free on its right, for a legend.
        below: Inches that the labels of the horizontal ticks need instead of a line.
    """
    width, height = figure.get_size_inches()
    columns = max(map(len, rows))
    left = [max(_left(row[k]) for row in rows if k < len(row)) for k in range(columns)]
    wide = (width - sum(left) - columns * (right + 2 * _EDGE)) / columns
    high = height / len(rows)
    for r, row in enumerate(rows):
        top = max(_EDGE + _LINE * bool(ax.get_title(loc="left")) for ax in row)
        foot = max(_TICK + max(_LINE, below) + _LINE * bool(ax.get_xlabel()) for ax in row)
        for k, ax in enumerate(row):
            x = sum(left[: k + 1]) + k * (wide + right + 2 * _EDGE)
            y = height - (r + 1) * high + foot
            tall = high - top - foot
            ax.set_position((x / width, y / height, wide / width, tall / height))
            ax.xaxis.set_label_coords(0.5, -(_TICK + max(_LINE, below)) / tall)
            ax.yaxis.set_label_coords(-(left[k] - _EDGE - _LINE) / wide, 0.5)


def place_square(figure: Figure, ax: Axes, bar: Axes, below: float) -> None:
    """Make a panel as large a square as fits, with the scale of its colours on its right.

    Args:
        figure: The figure.
        ax: The panel.
        bar: The scale, with a label.
        below: Inches that the labels of the horizontal ticks need instead of a line.
    """
    width, height = figure.get_size_inches()
    left, foot = _left(ax), _TICK + max(_LINE, below)
    beside = _GAP + _BAR + _TICK + LETTER_INCHES * _BAR_LETTERS + _LINE + _EDGE
    side = min(width - left - beside, height - foot - _EDGE)
    ax.set_position((left / width, foot / height, side / width, side / height))
    x, y = left + side + _GAP, foot + (1 - _BAR_SHARE) / 2 * side
    bar.set_position((x / width, y / height, _BAR / width, _BAR_SHARE * side / height))


def turned_inches(words: Sequence[str], degrees: float) -> float:
    """Return the height of the longest of some labels, turned by an angle."""
    return LETTER_INCHES * max(map(len, words)) * math.sin(math.radians(degrees)) + _LINE / 2


def _left(ax: Axes) -> float:
    """Return the inches that the vertical axis of a panel takes."""
    letters = max(map(len, tick_words(ax.yaxis)), default=0)
    return _EDGE + _TICK + LETTER_INCHES * letters + _LINE * bool(ax.get_ylabel())


def tick_words(axis: Axis) -> list[str]:
    """Return the labels that the ticks of an axis will have, without the marks of mathematics."""
    low, high = sorted(axis.get_view_interval())
    found = []
    for locator, formatter in (
        (axis.get_major_locator(), axis.get_major_formatter()),
        (axis.get_minor_locator(), axis.get_minor_formatter()),
    ):
        places = list(locator())
        words = formatter.format_ticks(places)
        found += [_plain(w) for w, at in zip(words, places, strict=True) if low <= at <= high]
    return found


def _plain(word: str) -> str:
    r"""Return the letters of ``$\mathdefault{2\times10^{-5}}$``."""
    for mark in (r"\mathdefault", "$", "{", "}", "^", " "):
        word = word.replace(mark, "")
    return word.replace(r"\times", " x ")

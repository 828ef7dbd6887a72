"""Numbers to words, as coarse as noise makes the numbers."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from physfed_ray.reports.measurements import Part


def percent(share: float) -> str:
    """Return a percentage as coarse as noise makes the measurement."""
    value = 100 * share
    if value < 1:
        return "under 1%"
    return f"{round(value)}%" if value < 10 else f"{5 * round(value / 5)}%"


def hounsfield(value: float) -> str:
    """Return a CT number to the nearest ten."""
    return f"{10 * round(value / 10)} HU"


def grade(value: float, steps: tuple[float, ...], words: tuple[str, ...]) -> str:
    """Return the word of the interval between ``steps`` that ``value`` falls into."""
    return words[int(np.searchsorted(steps, value))]


def balance(right: float, *words: str) -> str:
    """Return one of five words, from all on the patient's right to all on the left."""
    return grade(1 - right, (0.3, 0.44, 0.56, 0.7), words)


def place(part: "Part") -> str:
    """Return where most of a part lies, by the patient's sides."""
    side = grade(part.right, (0.33, 0.67), ("on the left", "central", "on the right"))
    depth = grade(part.front, (0.33, 0.67), ("posterior", "", "anterior"))
    return f"{depth} {side}".strip()


def count(pieces: int) -> str:
    """Return how many pieces there are, in words."""
    return grade(pieces, (1, 2, 5), ("one piece", "two pieces", "several pieces", "many pieces"))

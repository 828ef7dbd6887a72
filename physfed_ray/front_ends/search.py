"""Coordinate search: how a front end chooses several settings without trying all combinations."""

from collections.abc import Callable, Mapping, Sequence

from physfed_ray.front_ends.base import Choice


def descend(
    error: Callable[[Choice], float], grids: Mapping[str, Sequence[float]], start: Choice
) -> Choice:
    """Return settings from which no step on the grid of one setting lowers the error.

    One setting after the other goes down its grid, and up, as long as that helps; in turns, until
    none moves. Where the error has one valley in each setting, few values are tried.

    Args:
        error: What to lower. It is called again with what it has seen: it should remember.
        grids: The values of each setting, in their order; a setting with one value is fixed.
        start: Where to begin, a value of each grid.
    """
    best, least = dict(start), error(start)
    moved = True
    while moved:
        moved = False
        for name, values in grids.items():
            for step in (-1, 1):
                while 0 <= (place := list(values).index(best[name]) + step) < len(values):
                    trial = {**best, name: values[place]}
                    reached = error(trial)
                    if not reached < least:
                        break
                    best, least, moved = trial, reached, True
    return best

"""Coordinate search: by hand on a few values."""

from collections import Counter

from physfed_ray.front_ends.search import descend

GRIDS = {"a": (0.0, 1.0, 2.0, 3.0), "b": (10.0, 20.0, 30.0), "c": (5.0,)}


def test_it_goes_down_one_setting_after_the_other() -> None:
    tried: Counter[tuple[float, float]] = Counter()

    def error(choice):
        tried[choice["a"], choice["b"]] += 1
        return abs(choice["a"] - choice["b"] / 10) + abs(choice["b"] - 30)

    found = descend(error, GRIDS, {"a": 0.0, "b": 10.0, "c": 5.0})
    assert found == {"a": 3.0, "b": 30.0, "c": 5.0}
    assert len(tried) < 4 * 3


def test_it_stays_where_nothing_is_better() -> None:
    start = {"a": 1.0, "b": 20.0, "c": 5.0}
    assert descend(lambda _: 1.0, GRIDS, start) == start

"""Quantities as people read them."""

import pytest

from physfed_ray.words import byte_size, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0.2 s"),
        (59.4, "59.4 s"),
        (59.97, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7385, "2 h 3 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (7_400_000, "7.4 MB"), (3.2e14, "320.0 TB")]
)
def test_byte_sizes(count: float, text: str) -> None:
    assert byte_size(count) == text

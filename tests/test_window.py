"""Windows of Hounsfield units: there and back."""

import numpy as np
import pytest

from physfed_ray.window import denormalise, normalise

WINDOW = (-1000.0, 2000.0)


def test_the_window_maps_to_zero_and_one_and_back() -> None:
    hu = np.linspace(-1000, 2000, 3001, dtype=np.float32)
    assert normalise(hu, WINDOW)[[0, 1000, -1]] == pytest.approx([0, 1 / 3, 1])
    assert np.abs(denormalise(normalise(hu, WINDOW), WINDOW) - hu).max() < 1e-3
    assert normalise(np.array([-3000.0, 5000.0]), WINDOW).tolist() == [0, 1]
    assert normalise(hu, WINDOW).dtype == denormalise(hu, WINDOW).dtype == np.float32

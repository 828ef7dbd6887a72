"""Slices as pictures."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from physfed_ray.reports.windows import WINDOWS_HU, Channels, to_rgb


def test_window_ends_and_middle_become_black_white_and_grey():
    hu = np.array([[[-160.0, 40.0], [240.0, 5000.0]]], np.float32)
    grey = to_rgb(hu, "soft")
    assert grey.dtype == np.uint8
    assert grey[0, ..., 0].tolist() == [[0, 128], [255, 255]]
    assert (grey == grey[..., :1]).all()


def test_three_windows_are_the_three_single_ones():
    hu = np.random.default_rng(0).uniform(-1500, 2500, (2, 8, 8)).astype(np.float32)
    rgb = to_rgb(hu, "lung_soft_bone")
    for channel, name in enumerate(("lung", "soft", "bone")):
        assert np.array_equal(rgb[..., channel], to_rgb(hu, name)[..., 0])
        assert np.array_equal(to_rgb(hu, name), to_rgb(hu, WINDOWS_HU[name]))


def test_tissues_are_told_apart_where_their_window_is_meant_to():
    lung, muscle, fat, bone = (
        to_rgb(np.full((1, 1, 1), v), "lung_soft_bone")[0, 0, 0].astype(int)
        for v in (-800.0, 60.0, -100.0, 900.0)
    )
    assert 0 < lung[0] < 255
    assert lung[1] == 0
    assert muscle[1] - fat[1] > 80
    assert bone[1] == 255
    assert 0 < bone[2] < 255


def test_values_that_are_no_numbers_are_air():
    hu = np.array([[[np.nan, np.inf], [-np.inf, -160]]])
    assert to_rgb(hu, "soft")[0, ..., 0].tolist() == [[0, 255], [0, 0]]


def test_a_window_is_a_name_or_rises():
    check = TypeAdapter(Channels).validate_python
    assert check([-160, 240]) == (-160, 240)
    for wrong in ([240, -160], [0, 0], [1, 2, 3], "liver", ["a", "b"], 7, None):
        with pytest.raises(ValidationError, match=r"lung_soft_bone, lung, .* or \[low, high\]"):
            check(wrong)

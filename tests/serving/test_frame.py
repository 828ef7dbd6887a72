"""What of a slice is no image."""

import numpy as np

from physfed_ray.serving.frame import beyond_the_field


def test_flat_corners_are_no_image_and_single_equal_pixels_are() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 30, (64, 64)).round().astype(np.float32)
    place = np.arange(64) - 31.5
    outside = np.hypot(place[:, None], place) > 31
    image[outside] = -1024
    image[30:34, 30:34] = -1024  # not joined to a corner
    found = beyond_the_field(image[None])[0]
    np.testing.assert_array_equal(found, outside)
    noise = rng.normal(-1000, 1, (1, 64, 64)).round()
    noise[:, :2, :2] = -1000
    assert not beyond_the_field(noise).all()
    assert beyond_the_field(noise).mean() < 0.05

"""Where the pixels of a series lie on what the network sees."""

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.serving.own_grid import MARGIN_PIXELS, SMALLEST_SIDE, network_grid


def test_square_pixels_are_seen_as_they_are() -> None:
    image = np.random.default_rng(0).random((2, 61, 83)).astype(np.float32)
    grid = network_grid((61, 83), (0.7, 0.7), "own", 3.0)
    seen = grid.there(image)
    assert seen.shape == (2, 83 + 2 * MARGIN_PIXELS, 83 + 2 * MARGIN_PIXELS)
    top = (seen.shape[1] - 61) // 2
    np.testing.assert_array_equal(
        seen[:, top : top + 61, MARGIN_PIXELS : MARGIN_PIXELS + 83], image
    )
    np.testing.assert_array_equal(seen[:, top - 1], seen[:, top + 1])  # reflected
    np.testing.assert_array_equal(grid.back(seen), image)


def test_pixels_that_are_not_square_become_so_and_keep_lengths() -> None:
    rows = np.arange(40, dtype=np.float32)[None, :, None] * np.ones((1, 1, 30), np.float32)
    grid = network_grid((40, 30), (1.0, 0.5), "own", 3.0)
    assert (grid.shape, grid.pixel_mm) == ((80, 30), 0.5)
    seen = grid.there(rows)
    middle = seen[0, grid.side // 2 - 20 : grid.side // 2 + 20, grid.side // 2]
    np.testing.assert_allclose(np.diff(middle), 0.5, atol=1e-5)
    np.testing.assert_allclose(grid.back(seen)[0, 1:-1], rows[0, 1:-1], atol=1e-4)


def test_the_training_grid_s_pixels() -> None:
    grid = network_grid((512, 511), (0.5, 0.5), "trained", 2.0)
    assert (grid.shape, grid.pixel_mm) == ((128, 128), 2.0)
    flat = np.full((1, 512, 511), 0.25, np.float32)
    np.testing.assert_allclose(grid.there(flat), 0.25, rtol=1e-6)
    np.testing.assert_allclose(grid.back(grid.there(flat)), 0.25, rtol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (1, 5)])
def test_a_tiny_image_is_made_large_enough_for_any_backbone(shape: tuple[int, int]) -> None:
    grid = network_grid(shape, (1, 1), "own", 1.0)
    image = np.random.default_rng(0).random((1, *shape)).astype(np.float32)
    assert grid.there(image).shape == (1, SMALLEST_SIDE, SMALLEST_SIDE)
    np.testing.assert_array_equal(grid.back(grid.there(image)), image)


@pytest.mark.parametrize("spacing_mm", [(np.nan, 1), (1, -1), 3, (1, 1, 1)])
def test_a_spacing_that_is_none_is_refused(spacing_mm: object) -> None:
    with pytest.raises(PhysFedError, match="two lengths in mm"):
        network_grid((20, 20), spacing_mm, "own", 1.0)  # type: ignore[arg-type]


def test_a_grid_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(PhysFedError, match="correct the spacing"):
        network_grid((512, 512), (500.0, 0.5), "own", 1.0)

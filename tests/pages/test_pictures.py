"""Rows of pictures in the report of a run."""

import numpy as np
import pytest

from physfed_ray.pages.pictures import Panel, denoised_panels, sample_slices
from physfed_ray.seeds import generator


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_every_heading_is_inside_the_figure(rows: int) -> None:
    full = generator(1, "pictures").normal(0.0, 50.0, (48, 48)).astype(np.float32)
    panel = Panel("client\nprotocol", full, (full + 5, full + 3))
    figure = denoised_panels([panel] * rows, ["Low dose", "SCAN-PhysFed"])
    figure.draw_without_rendering()
    sheet, _ = figure.axes
    assert len(sheet.texts) == 5 + rows * 3  # headings, labels, and the PSNR of two images
    for text in sheet.texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_samples_are_two_rows_of_squares_below_their_names() -> None:
    full = generator(1, "pictures").normal(0.0, 50.0, (48, 48)).astype(np.float32)
    figure = sample_slices([Panel(f"client {k}", full, (full + k,)) for k in range(3)])
    (sheet,) = figure.axes
    images = [np.asarray(image.get_array()) for image in sheet.images]
    assert [float(image[0, 0] - full[0, 0]) for image in images] == pytest.approx(
        [0, 0, 0, 1, 0, 2], abs=1e-4
    )
    places = [image.get_extent() for image in sheet.images]
    assert len({round(top, 6) for *_, top in places}) == 2
    assert all(right - left == pytest.approx(low - top) for left, right, low, top in places)

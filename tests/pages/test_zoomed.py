"""Qualitative panels: the paper's windows, a region chosen by the full dose, errors below."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from physfed_ray.pages.pictures import SOFT_TISSUE_HU, Panel
from physfed_ray.pages.zoomed import (
    CHEST_HU,
    ZOOM,
    detailed_region,
    paper_window,
    zoomed_panels,
)
from physfed_ray.seeds import generator

N = 64


def _body(lung: float = 0.0) -> NDArray[np.float32]:
    """Return a disk of soft tissue with a central disk of lung of the given share of its area."""
    yy, xx = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    radius = np.hypot(xx, yy)
    hu = np.where(radius < 0.9, 40.0, -1000.0)
    hu[radius < 0.9 * np.sqrt(lung)] = -800.0
    return hu.astype(np.float32)


@pytest.mark.parametrize(("lung", "window"), [(0, SOFT_TISSUE_HU), (0.05, SOFT_TISSUE_HU),
                                              (0.2, CHEST_HU), (0.5, CHEST_HU)])  # fmt: skip
def test_a_slice_with_lungs_gets_the_wide_window(lung: float, window: tuple[float, float]) -> None:
    assert paper_window(_body(lung)) == window


def test_air_alone_has_a_window_too() -> None:
    assert paper_window(np.full((N, N), -1000.0, np.float32)) == SOFT_TISSUE_HU


def test_the_region_is_the_square_with_texture() -> None:
    full = _body()
    side = N // ZOOM
    row, column = 20, 30
    texture = generator(1, "texture").normal(0, 30, (side, side))
    full[row : row + side, column : column + side] += texture.astype(np.float32)
    found = detailed_region(full, SOFT_TISSUE_HU)
    assert found[2] == side
    assert abs(found[0] - row) <= 2
    assert abs(found[1] - column) <= 2


def test_edges_to_black_and_white_do_not_draw_the_region() -> None:
    full = _body()
    full[10:14, 28:36] = 1500.0  # bone: the strongest edge of the image
    full[36:46, 26:36] += np.linspace(0, 120, 10, dtype=np.float32)
    row, column, side = detailed_region(full, SOFT_TISSUE_HU)
    assert row <= 41 < row + side
    assert column <= 31 < column + side
    assert row > 14


@pytest.mark.parametrize("size", [24, 33, 64])
def test_the_region_stays_inside(size: int) -> None:
    full = np.full((size, size), 40.0, np.float32)
    full[:, -1] = 100.0
    row, column, side = detailed_region(full, SOFT_TISSUE_HU)
    assert min(row, column) >= 0
    assert max(row, column) + side <= size


@pytest.mark.parametrize("methods", [1, 5, 14])
def test_every_image_has_its_whole_its_zoom_and_its_error(methods: int) -> None:
    full = _body()
    images = tuple(full + 10 * (k + 1) for k in range(1 + methods))
    headings = ["Low dose", *(f"Method {k}" for k in range(methods))]
    figure = zoomed_panels(Panel("paper-2", full, images), headings, SOFT_TISSUE_HU)
    sheet, bar = figure.axes
    shapes = Counter((i.get_array().shape, i.get_cmap().name) for i in sheet.images)
    assert shapes == {
        ((N, N), "gray"): 2 + methods,
        ((N // ZOOM, N // ZOOM), "gray"): 2 + methods,
        ((N, N), "RdBu_r"): 1 + methods,  # the full dose has no error
    }
    texts = [text.get_text() for text in sheet.texts]
    assert texts[0] == "paper-2, -160 to 240 HU"
    assert [t for t in texts[1:] if not t.endswith("dB")] == ["Full dose", *headings]
    assert sum(t.endswith("dB") for t in texts) == 1 + methods
    assert bar.get_xlabel() == "image minus full dose (HU)"


def test_no_two_images_overlap_and_none_leaves_the_sheet() -> None:
    full = _body()
    figure = zoomed_panels(Panel("c", full, (full,) * 15), ["A long name, of two lines"] * 15,
                           CHEST_HU)  # fmt: skip
    width, height = figure.get_size_inches()
    places = [image.get_extent() for image in figure.axes[0].images]
    taken = np.zeros((round(100 * height), round(100 * width)), int)
    for left, right, bottom, top in places:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        taken[round(100 * top) : round(100 * bottom), round(100 * left) : round(100 * right)] += 1
    assert taken.max() == 1


def test_errors_are_image_minus_full_dose_and_images_share_the_window() -> None:
    full = _body()
    figure = zoomed_panels(Panel("c1", full, (full + 25,)), ["Low dose"], CHEST_HU)
    images = figure.axes[0].images
    (error,) = [image for image in images if image.get_cmap().name == "RdBu_r"]
    assert np.allclose(error.get_array(), 25)  # type: ignore[arg-type]
    greys = [image for image in images if image.get_cmap().name == "gray"]
    assert {image.get_clim() for image in greys} == {CHEST_HU}
    assert len(greys) == 4


def test_the_frame_encloses_what_is_enlarged() -> None:
    full = _body()
    row, column, side = detailed_region(full, SOFT_TISSUE_HU)
    figure = zoomed_panels(Panel("c1", full, (full,)), ["Low dose"], SOFT_TISSUE_HU)
    sheet = figure.axes[0]
    left, right, _, top = sheet.images[0].get_extent()
    pixel = (right - left) / N
    frame = sheet.patches[0].get_bbox()  # type: ignore[attr-defined]
    assert (frame.x0, frame.y0) == pytest.approx((left + column * pixel, top + row * pixel))
    assert frame.width == pytest.approx(side * pixel)
    enlarged = sheet.images[1].get_array()
    assert np.array_equal(enlarged, full[row : row + side, column : column + side])

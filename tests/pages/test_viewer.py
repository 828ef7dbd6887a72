"""The viewer in a real browser: what is seen, read, dragged, typed and touched."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from physfed_ray.pages.viewer import viewer_fragment, viewer_html
from tests.pages.browser import Browser, browser, needs_chromium
from tests.pages.test_viewer_pixels import slices

COUNT, HIGH, WIDE = 5, 40, 48
SPACING_MM = (1.0, 0.75)
IMAGES = dict(
    zip(
        ("low dose", "denoised", "full dose"),
        (image[:, :HIGH] for image in slices(COUNT, WIDE, 3)),
        strict=True,
    )
)
CAPTIONS = [f"c1 <b>, slice {k}" for k in range(COUNT)]
V = "document.querySelector('.viewer').viewer"


def page(images: dict[str, np.ndarray] = IMAGES) -> str:
    return viewer_html(images, spacing_mm=SPACING_MM, window_hu=(-1000.0, 2000.0),
                       title="Series <1>", captions=CAPTIONS)  # fmt: skip


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_the_page_needs_nothing_but_itself() -> None:
    text = page()
    assert not re.search(r"https?://|@import|src=|<link", text)
    assert "Series &lt;1&gt;" in text
    assert "<b>" not in text.replace("<b>{{", "")
    assert "HU are kept in steps of 1, so each is within 0.5 HU of its value" in text


def test_what_was_lost_is_said() -> None:
    images = {"low dose": np.random.default_rng(0).normal(0, 40, (30, 256, 256))}
    text = viewer_fragment(images, spacing_mm=(0.5, 0.5), window_hu=(-1000, 2000), label="A",
                           captions=[f"z {k}" for k in range(30)], max_bytes=400_000)  # fmt: skip
    assert "each pixel is the mean of 2 x 2" in text
    assert "24 of 30 slices are here" in text
    assert '"spacing": [[1.0, 1.0]' in text
    assert '"captions": ["z 0", "z 1", "z 3"' in text


@pytest.mark.parametrize(
    ("images", "captions", "said"),
    [
        ({}, [], "one shape"),
        ({"a": np.zeros((2, 4, 4)), "b": np.zeros((2, 4, 5))}, ["", ""], "one shape"),
        ({"a": np.zeros((4, 4))}, ["", ""], "one shape"),
        ({"a": np.full((1, 4, 4), np.nan)}, [""], "finite"),
        ({"a": np.zeros((2, 4, 4))}, [""], "2 slices have 1 captions"),
    ],
)
def test_what_cannot_be_shown_is_refused(images: Any, captions: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        viewer_html(images, spacing_mm=(1, 1), window_hu=(-1000, 2000), title="", captions=captions)


@needs_chromium
def test_a_reader_at_a_desk(chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "viewer.html"
    file.write_text(page())
    chromium.open(file, 1200, 1000)
    _pixels_are_exact(chromium)
    _keys(chromium)
    _mouse(chromium)
    _line(chromium)
    assert chromium.trouble == []
    assert chromium.requests == [file.as_uri()]


def _pixels_are_exact(chromium: Browser) -> None:
    for k in range(COUNT):
        shown = chromium.run(f"{V}.load({k}).then(all => all.map(one => [...one]))")
        expected = [image[k].ravel() for image in IMAGES.values()]
        assert np.abs(np.array(shown) - np.array(expected)).max() <= 0.5


def _state(chromium: Browser) -> dict[str, Any]:
    found: dict[str, Any] = chromium.run(
        f"(({{slice, image, level, span, difference, reference, tool, zoom, centre, line}}) => "
        f"({{slice, image, level, span, difference, reference, tool, zoom, centre, line}}))({V})"
    )
    return found


def _keys(chromium: Browser) -> None:
    assert _state(chromium)["slice"] == COUNT // 2
    for key, name, value in [
        ("ArrowDown", "slice", 3), ("End", "slice", 4), ("ArrowDown", "slice", 4),
        ("Home", "slice", 0), ("ArrowUp", "slice", 0), ("PageDown", "slice", 4),
        (" ", "image", 2), (" ", "image", 0), ("ArrowLeft", "image", 2), ("2", "image", 1),
        ("d", "difference", True), ("l", "tool", "line"), ("r", "tool", "window"),
        ("r", "difference", False), ("]", "span", 460), (".", "level", 63), ("+", "zoom", 1.4),
    ]:  # fmt: skip
        chromium.key(key)
        assert _state(chromium)[name] == value, key
    chromium.key("r")
    status = chromium.run("document.querySelector('.viewer-status').textContent")
    assert status == "denoised, c1 <b>, slice 4"
    chromium.key("ArrowRight", modifiers=8)
    words = chromium.run("document.querySelector('.viewer-place').textContent")
    assert words.startswith(f"Column {WIDE // 2 + 1}, row {HIGH // 2} ")


def _box(chromium: Browser) -> tuple[float, float, float, float]:
    box = chromium.run(
        "(b => [b.x, b.y, b.width, b.height])(document.querySelector('.viewer-stage')"
        ".getBoundingClientRect())"
    )
    return tuple(box)


def _mouse(chromium: Browser) -> None:
    x, y, wide, high = _box(chromium)
    assert abs(high / wide - HIGH * SPACING_MM[0] / (WIDE * SPACING_MM[1])) < 0.01
    chromium.drag((x + 100, y + 100), (x + 228, y + 164))
    assert (_state(chromium)["span"], _state(chromium)["level"]) == (800, 140)
    chromium.run('document.querySelector(\'[data-low="-1350"], [data-low="-1350.0"]\').click()')
    assert (_state(chromium)["span"], _state(chromium)["level"]) == (1500, -600)
    chromium.mouse("mouseWheel", x + 50, y + 50, deltaX=0, deltaY=-120)
    chromium.wait(f"{V}.slice === {COUNT - 2}")
    column, row = 10, 30
    chromium.mouse("mouseMoved", x + (column + 0.5) * wide / WIDE, y + (row + 0.5) * high / HIGH)
    chromium.settle()
    cells = chromium.run("[...document.querySelectorAll('.viewer-values tbody tr')]"
                         ".map(row => row.cells[1].textContent)")  # fmt: skip
    expected = [round(float(image[COUNT - 2, row, column])) for image in IMAGES.values()]
    assert [int(cell.replace("\u2212", "-")) for cell in cells] == expected
    grey = chromium.run(
        f"[...{V}.picture.getContext('2d').getImageData({column}, {row}, 1, 1).data]"
    )
    value = round(float(IMAGES["denoised"][COUNT - 2, row, column]))
    assert grey == [round(255 * min(1, max(0, (value + 1350) / 1500)))] * 3 + [255]


def _line(chromium: Browser) -> None:
    x, y, wide, high = _box(chromium)
    chromium.key("l")
    chromium.drag((x + 0.2 * wide, y + 0.3 * high), (x + 0.8 * wide, y + 0.6 * high))
    (x0, y0), (x1, y1) = _state(chromium)["line"]
    found = chromium.run(f"{V}.profile()")
    steps = int(np.ceil(np.hypot(x1 - x0, y1 - y0)))
    t = np.linspace(0, 1, steps + 1)
    places = np.array([y0 + t * (y1 - y0), x0 + t * (x1 - x0)]) - 0.5
    length = np.hypot((y1 - y0) * SPACING_MM[0], (x1 - x0) * SPACING_MM[1])
    np.testing.assert_allclose(found["mm"], t * length, atol=1e-9)
    for image, values in zip(IMAGES.values(), found["hu"], strict=True):
        expected = map_coordinates(np.rint(image[COUNT - 2]), places, order=1)
        np.testing.assert_allclose(values, expected, atol=1e-9)
    mean = chromium.run("document.querySelector('.viewer-values tbody').rows[0].cells[2].innerText")
    assert mean.replace("\u2212", "-") == f"{np.mean(found['hu'][0]):.1f}"


@needs_chromium
def test_a_reader_with_a_phone_and_two_viewers(chromium: Browser, tmp_path: Path) -> None:
    file, low = tmp_path / "two.html", {"low dose": IMAGES["low dose"][:3]}
    second = viewer_fragment(low, spacing_mm=(1, 1), window_hu=(-1000, 2000), label="Second",
                             captions=CAPTIONS[:3])  # fmt: skip
    file.write_text(page().replace("<script>\n", f"{second}<script>\n", 1))
    chromium.open(file, 390, 800, touch=True)
    assert chromium.run("document.documentElement.scrollWidth") <= 390
    x, y, _, _ = _box(chromium)
    chromium.fingers([(x + 50, y + 100)], [(x + 114, y + 132)], [(x + 178, y + 164)])
    assert (_state(chromium)["span"], _state(chromium)["level"]) == (800, 140)
    apart = [[(x + 100 - d, y + 120), (x + 160 + d, y + 120)] for d in (0, 15, 30)]
    chromium.fingers(*apart)
    state = _state(chromium)
    assert state["zoom"] == pytest.approx(2.0)
    assert (state["span"], state["level"]) == (800, 140)
    other = "document.querySelectorAll('.viewer')[1].viewer"
    assert chromium.run(f"{other}.span") == 400
    assert chromium.run(f"{other}.data.names") == ["low dose"]
    assert chromium.trouble == []

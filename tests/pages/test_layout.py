"""Panels that are placed by counting letters: nothing is cut off, and nothing overlaps."""

import numpy as np
import pytest

from physfed_ray.pages import figures
from physfed_ray.pages.layout import tick_words

CURVES = {f"c{k}": ([1, 2, 3], [1e-3 * k + 1e-5, 1e-4 * k + 1e-5, 3e-4]) for k in range(3)}
LONG = [f"hospital-{k:02d}-scanner" for k in range(10)]


def _drawn() -> dict[str, figures.Figure]:
    rng = np.random.default_rng(0)
    slices = [rng.normal(40, 2, 9) for _ in LONG]
    codes = rng.normal(size=(10, 4)).astype(np.float32)
    many = {f"of {k}": {n: (r, [v * 10.0**-k for v in c]) for n, (r, c) in CURVES.items()}
            for k in range(5)}  # fmt: skip
    return {
        "curves": figures.learning_curves(CURVES, CURVES, "test", 40.0),
        "boxes": figures.boxplots({"PSNR (dB)": {"Input": slices, "Method": slices}}, LONG),
        "costs": figures.costs(([1, 2], [1.0, 2.0]), ([1, 2], [1e9, 2e9]), ([1, 2], [1e8, 2e8])),
        "modulation": figures.modulation(many),
        "codes": figures.cosine_matrix(codes, LONG),
    }


@pytest.mark.parametrize(("name", "figure"), _drawn().items())
def test_no_word_leaves_the_figure_and_no_panel_another(name: str, figure: figures.Figure) -> None:
    figure.draw_without_rendering()
    whole = figure.bbox
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for box in boxes:
        assert box is not None
        assert whole.x0 - 1 <= box.x0 < box.x1 <= whole.x1 + 1, name
        assert whole.y0 - 1 <= box.y0 < box.y1 <= whole.y1 + 1, name
    inner = [ax.get_window_extent() for ax in figure.axes]
    for k, one in enumerate(boxes):
        for other in inner[k + 1 :]:
            assert not one.overlaps(other), name  # type: ignore[union-attr]


def test_the_words_of_an_axis_are_those_that_are_drawn() -> None:
    figure = figures.modulation({"a": CURVES})
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = ax.get_ylim()
    drawn = [t.get_text() for t in ax.get_yticklabels() if low <= t.get_position()[1] <= high]
    assert tick_words(ax.yaxis) == drawn

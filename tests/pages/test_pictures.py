"""Rows of pictures in the report of a run."""

import numpy as np
import pytest

from physfed_ray.pages.pictures import Panel, denoised_panels
from physfed_ray.seeds import generator


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_every_heading_is_inside_the_figure(rows: int) -> None:
    full = generator(1, "pictures").normal(0.0, 50.0, (48, 48)).astype(np.float32)
    panel = Panel("client\nprotocol", full, (full + 5, full + 3))
    figure = denoised_panels([panel] * rows, ["Low dose", "SCAN-PhysFed"])
    figure.draw_without_rendering()
    for ax in figure.axes[:5]:
        box = ax.title.get_window_extent()
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1

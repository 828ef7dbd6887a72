"""Fields that are made of a series, and those that cannot be."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from physfed_ray.ct.base_image import explain
from physfed_ray.ct.noise_map import noise_map_hu
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.front_ends.registry import make_front_end
from physfed_ray.serving.own_fields import made_for, report_images
from physfed_ray.serving.own_grid import network_grid
from tests.conftest import WINDOW_HU, quick

PROTOCOL = quick(PRESETS["paper-3"], 24)


def method(*fields: str) -> Any:
    backbone = SimpleNamespace(fields=())
    task = SimpleNamespace(backbone=backbone, front_end=make_front_end())
    return SimpleNamespace(task=task, reads=lambda: fields, title="M")


def test_the_noise_is_that_of_the_pixels_own_grid() -> None:
    grid = network_grid((44, 44), (PROTOCOL.pixel_at(64),) * 2, "own", 1.0)
    assert grid.side == 64
    seen = np.full((1, 64, 64), 1 / 3, np.float32)  # water
    sigma = made_for(method("sigma"), seen, grid, PROTOCOL, WINDOW_HU)["sigma"]
    expected = noise_map_hu(np.zeros((1, 64, 64)), PROTOCOL) / 3000
    np.testing.assert_allclose(sigma, expected, rtol=1e-3)
    assert sigma.max() > 0


def test_streaks_and_base_are_those_of_the_series() -> None:
    grid = network_grid((44, 44), (PROTOCOL.pixel_at(64),) * 2, "own", 1.0)
    seen = np.full((1, 64, 64), 0.0, np.float32)
    seen[:, 20:44, 16:48] = 1 / 3
    made = made_for(method("streaks", "base"), seen, grid, PROTOCOL, WINDOW_HU)
    hu = seen * 3000 - 1000
    expected = explain(hu, noise_map_hu(hu, PROTOCOL), PROTOCOL)
    np.testing.assert_allclose(made["streaks"] * 3000, expected.streaks, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(
        made["base"] * 3000 - 1000, np.clip(expected.base, -1000, 2000), atol=0.1
    )
    assert expected.streaks.any()


def test_reports_need_no_field_and_a_sinogram_cannot_be_made() -> None:
    grid = network_grid((44, 44), (1, 1), "own", 1.0)
    seen = np.zeros((1, 64, 64), np.float32)
    assert made_for(method("embedding", "embedding_mask"), seen, grid, PROTOCOL, WINDOW_HU) == {}
    with pytest.raises(PhysFedError, match=r"the field 'sinogram' .* cannot be made of a series"):
        made_for(method("sinogram"), seen, grid, PROTOCOL, WINDOW_HU)
    wide = network_grid((44, 44), (4, 4), "own", 1.0)
    with pytest.raises(PhysFedError, match="frame is 256 mm wide cannot be computed"):
        made_for(method("sigma"), seen, wide, PRESETS["paper-1"], WINDOW_HU)


def test_reporters_see_the_body_in_the_middle_of_the_run_s_grid() -> None:
    hu = np.full((1, 60, 80), -1000.0, np.float32)
    hu[:, 5:25, 10:30] = 40
    (image,) = report_images(hu, (1.0, 1.0), 32)
    assert image.shape == (32, 32)
    assert image[16, 16] == pytest.approx(40, abs=1)

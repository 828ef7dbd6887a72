"""Line integrals against plane geometry, and the adjoint."""

from dataclasses import replace

import astra
import numpy as np
import pytest

from physfed_ray.ct import projection
from physfed_ray.ct.attenuation import MU_WATER_PER_MM
from physfed_ray.ct.projection import back_project, project
from physfed_ray.ct.protocol import PRESETS, Protocol

FEW_VIEWS = replace(PRESETS["paper-1"], views=16)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (25.0, -15.0)], ids=["centred", "off-centre"])
def test_line_integrals_of_a_disk_are_its_chords(exact, x: float, y: float) -> None:
    radius = 40.0
    mu = MU_WATER_PER_MM * exact.disk(FEW_VIEWS, 256, x, y, radius)
    sinogram = project(mu[None], FEW_VIEWS)[0]
    expected = MU_WATER_PER_MM * exact.disk_sinogram(FEW_VIEWS, x, y, radius)
    error_mm = (sinogram - expected) / MU_WATER_PER_MM
    assert np.linalg.norm(error_mm) < 0.01 * np.linalg.norm(expected / MU_WATER_PER_MM)
    inside = exact.ray_distance(FEW_VIEWS, x, y) < 0.9 * radius
    assert np.abs(error_mm[inside]).mean() < 0.2 * FEW_VIEWS.pixel_mm
    assert abs(error_mm[inside].mean()) < 0.02 * FEW_VIEWS.pixel_mm
    assert sinogram[exact.ray_distance(FEW_VIEWS, x, y) > radius + 1].max() == 0


@pytest.mark.parametrize("name", PRESETS)
def test_line_integrals_of_a_gaussian_under_every_preset(exact, name: str) -> None:
    protocol = replace(PRESETS[name], views=5)
    field = protocol.field_radius_mm
    place = (0.3 * field, 0.2 * field, 0.15 * field)
    sinogram = project(exact.gaussian(protocol, 128, *place)[None], protocol)[0]
    expected = exact.gaussian_sinogram(protocol, *place)
    assert np.linalg.norm(sinogram - expected) < 0.005 * np.linalg.norm(expected)


def test_line_integrals_of_a_short_scan(exact) -> None:
    protocol = replace(PRESETS["paper-1"], views=7, arc_deg=220)
    place = (30.0, 20.0, 12.0)
    sinogram = project(exact.gaussian(protocol, 128, *place)[None], protocol)[0]
    expected = exact.gaussian_sinogram(protocol, *place)
    assert np.linalg.norm(sinogram - expected) < 0.005 * np.linalg.norm(expected)


def test_a_curved_detector_is_refused(small: Protocol) -> None:
    curved = replace(small, detector="arc")
    with pytest.raises(ValueError, match=r"flat detectors, not onto detector=arc; use .*FanBeam"):
        project(np.ones((1, 8, 8), dtype=np.float32), curved)
    with pytest.raises(ValueError, match="FanBeam"):
        back_project(np.ones((1, small.views, small.bins), dtype=np.float32), curved, 8)


def test_projection_is_linear(small: Protocol) -> None:
    a, b = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
    both = project(np.stack((a, b, 2 * a - b)), small)
    np.testing.assert_allclose(both[2], 2 * both[0] - both[1], rtol=1e-4, atol=1e-4)


def test_a_batch_equals_its_slices(small: Protocol) -> None:
    mu = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    one_by_one = [project(image[None], small)[0] for image in mu]
    np.testing.assert_array_equal(project(mu, small), one_by_one)


def test_inputs_of_any_layout_and_type_are_understood(small: Protocol) -> None:
    mu = np.random.default_rng(0).random((2, 16, 16))
    expected = project(mu.astype(np.float32), small)
    np.testing.assert_array_equal(project(mu, small), expected)
    turned = np.asfortranarray(mu.astype(np.float32))
    np.testing.assert_array_equal(project(turned, small), expected)


def test_back_projection_is_the_adjoint(small: Protocol) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 20, 20)).astype(np.float32)
    y = rng.standard_normal((2, small.views, small.bins)).astype(np.float32)
    forward = np.vdot(project(x, small, cuda=False).astype(float), y)
    assert np.vdot(x.astype(float), back_project(y, small, 20)) == pytest.approx(forward, rel=1e-4)


def test_astra_keeps_nothing_but_the_cached_projectors(
    small: Protocol, capsys: pytest.CaptureFixture[str]
) -> None:
    projection._projector.cache_clear()
    before = living_astra_objects(capsys)
    for size in (8, 12, 16, 8):
        project(np.ones((2, size, size), dtype=np.float32), small)
        back_project(np.ones((2, small.views, small.bins), dtype=np.float32), small, size)
    assert living_astra_objects(capsys) == before + 3
    projection._projector.cache_clear()
    assert living_astra_objects(capsys) == before


def living_astra_objects(capsys: pytest.CaptureFixture[str]) -> int:
    capsys.readouterr()
    for kind in (astra.projector, astra.data2d, astra.algorithm):
        kind.info()
    return sum(line[:1].isdigit() for line in capsys.readouterr().out.splitlines())

"""What is scanned beside the protocol: sizes of objects, kernels, rays of a bin."""

from dataclasses import replace

import pytest

from physfed_ray.ct.fbp import KERNEL_PIXELS, default_kernel_mm
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.simulation import Simulation, default_object_scale, fine_detector


@pytest.mark.parametrize(
    ("image_size", "scale"), [(32, 4), (64, 4), (128, 4), (192, 3), (256, 2), (512, 2), (1024, 2)]
)
def test_objects_are_two_to_four_times_as_fine_and_of_512_pixels_where_that_fits(
    image_size: int, scale: int
) -> None:
    assert default_object_scale(image_size) == scale


def test_the_default_kernel_follows_the_grid_and_is_never_finer_than_the_scanners_own() -> None:
    protocol = PRESETS["paper-4"]
    own = KERNEL_PIXELS * 1.4
    widths = {n: default_kernel_mm(protocol, n) for n in (64, 128, 256, 512)}
    assert widths == pytest.approx({64: 4 * own, 128: 2 * own, 256: own, 512: own})


def test_a_kernel_in_pixels_is_one_of_the_image() -> None:
    protocol = PRESETS["paper-4"]
    assert Simulation(128, 4, 1.5).kernel_mm(protocol) == pytest.approx(1.5 * 2.8)
    assert Simulation(128, 4, 0.0).kernel_mm(protocol) == 0
    assert Simulation(128, 4).kernel_mm(protocol) is None


def test_a_bin_has_as_many_rays_as_object_pixels_lie_across_it() -> None:
    protocol = replace(PRESETS["paper-4"], bin_mm=1.5)  # 0.81 mm at the centre
    assert [Simulation(256, scale).rays(protocol) for scale in (1, 2, 4, 8)] == [1, 2, 3, 5]


def test_a_fine_detector_is_as_long_as_the_coarse_one() -> None:
    fine = fine_detector(PRESETS["paper-1"], 3)
    assert (fine.bins, fine.bins * fine.bin_mm) == (1536, pytest.approx(512 * 0.72))
    assert fine.covered_radius_mm == pytest.approx(PRESETS["paper-1"].covered_radius_mm)

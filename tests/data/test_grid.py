"""The image grid: the body is found, centred, kept whole and kept true in HU and shape."""

from pathlib import Path

import numpy as np
import pytest

from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import AIR_HU, area_mean, to_grid
from physfed_ray.data.grid_body import body_mask

WINDOW = (-1000.0, 2000.0)


def ellipse(shape, centre, radii):
    row, column = np.ogrid[: shape[0], : shape[1]]
    return ((row + 0.5 - centre[0]) / radii[0]) ** 2 + (
        (column + 0.5 - centre[1]) / radii[1]
    ) ** 2 <= 1


def chest(shape=(160, 200), centre=(70, 90), radii=(45, 70)) -> tuple[np.ndarray, np.ndarray]:
    """Return a body of soft tissue with two lungs, and the mask of the whole body."""
    body = ellipse(shape, centre, radii)
    hu = np.full(shape, AIR_HU, np.float32)
    hu[body] = 40
    for side in (-1, 1):
        hu[ellipse(shape, (centre[0], centre[1] + side * 30), (30, 22))] = -850
    return hu, body


def circle(n: int) -> np.ndarray:
    offset = np.arange(n) - (n - 1) / 2
    return np.hypot(offset[:, None], offset) <= n / 2


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_lungs_belong_to_the_body_and_table_and_blanket_do_not():
    hu, body = chest()
    hu[130:133, 20:180] = 200  # table top, 3 mm
    hu[150:152, 30:170] = 200
    hu[130:152, 20:23] = 200  # a closed box: its inside must not be filled in
    hu[130:152, 177:180] = 200
    hu[18:20, 60:120] = -100  # blanket
    hu[118:126, 40:140] = -900  # mattress, in touch with nothing dense
    assert overlap(body_mask(hu), body) > 0.98


def test_a_table_that_touches_the_skin_stays_out():
    hu, body = chest()
    hu[115:118, 5:195] = 100
    assert overlap(body_mask(hu), body) > 0.97


def test_two_legs_are_two_bodies_without_the_gap_between_them():
    hu = np.full((200, 200), AIR_HU, np.float32)
    legs = ellipse(hu.shape, (100, 55), (40, 35)) | ellipse(hu.shape, (100, 145), (45, 38))
    hu[legs] = 0
    mask = body_mask(hu)
    assert overlap(mask, legs) > 0.98
    assert not mask[100, 98]


def test_the_body_is_found_at_any_spacing_and_in_noise():
    hu, body = chest()
    noisy = hu + np.random.default_rng(0).normal(0, 120, hu.shape).astype(np.float32)
    fine = np.kron(noisy, np.ones((2, 3), np.float32))
    mask = body_mask(fine, (0.5, 1 / 3))
    assert overlap(mask[::2, ::3], body) > 0.96


def test_a_slice_of_air_has_no_body_and_stays_air():
    hu = np.full((64, 48), AIR_HU, np.float32)
    gridded = to_grid(hu, (1.0, 1.0), 32, "body")
    assert not gridded.body.any()
    assert (gridded.image == AIR_HU).all()
    assert gridded.scale == 1.0


def test_a_body_that_fills_the_frame_is_shrunk_into_the_circle():
    hu = np.full((150, 200), 40, np.float32)  # a crop without any air
    gridded = to_grid(hu, (1.0, 1.0), 128, "body")
    assert gridded.scale == pytest.approx((64 - 1.5) / 64 * 200 / np.hypot(150, 200), rel=5e-3)
    tissue = gridded.image > -500
    assert not (tissue & ~circle(128)).any()
    kept_mm2 = tissue.sum() * (200 / 128 / gridded.scale) ** 2
    assert kept_mm2 == pytest.approx(150 * 200, rel=0.02)


@pytest.mark.parametrize("centre", [(50, 75), (110, 130), (80, 100)])
def test_the_body_lands_in_the_middle_wherever_it_was(centre: tuple[int, int]):
    hu, _ = chest(centre=centre)
    gridded = to_grid(hu, (1.0, 1.0), 128, "body")
    rows, columns = np.nonzero(gridded.body)
    assert abs(rows.min() + rows.max() - 127) <= 2
    assert abs(columns.min() + columns.max() - 127) <= 2
    assert gridded.scale == 1.0


def test_centring_the_image_leaves_the_frame_where_it_is():
    hu = np.full((100, 100), AIR_HU, np.float32)
    hu[10:30, 40:60] = 0
    gridded = to_grid(hu, (1.0, 1.0), 50, "image")
    expected = np.zeros((50, 50), bool)
    expected[5:15, 20:30] = True
    assert ((gridded.image > -500) == (expected & circle(50))).all()
    assert gridded.scale == 1.0


def test_the_aspect_ratio_is_kept_whatever_the_spacings():
    hu = np.full((100, 180), AIR_HU, np.float32)
    hu[ellipse(hu.shape, (40, 90), (20, 60))] = 0  # 20 x 3 mm and 60 x 1 mm: a disk
    gridded = to_grid(hu, (3.0, 1.0), 96, "body")
    rows, columns = np.nonzero(gridded.image > -500)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    assert np.ptp(columns) + 1 == pytest.approx(120 / (300 / 96), abs=1.5)


@pytest.mark.parametrize("finer", [1, 4])
@pytest.mark.parametrize("n", [48, 128, 300])
def test_resampling_keeps_the_mean_and_levels_of_hu(n: int, finer: int):
    hu, _ = chest(shape=(160, 160), centre=(80, 80), radii=(45, 60))
    gridded = to_grid(hu, (0.8, 0.8), n, "body", finer)
    mass_before = (hu - AIR_HU).sum() * 0.8**2
    mass_after = (gridded.image - AIR_HU).sum(dtype=np.float64) * (0.8 * 160 / n) ** 2
    assert mass_after == pytest.approx(mass_before, rel=5e-3)
    assert gridded.image.min() >= AIR_HU - 1e-3
    assert gridded.image.max() == pytest.approx(40, abs=1e-2)


def test_the_object_is_finer_and_the_image_its_mean_over_pixels():
    hu, _ = chest(shape=(160, 160), centre=(80, 80), radii=(45, 60))
    coarse, fine = to_grid(hu, (0.8, 0.8), 64, "body"), to_grid(hu, (0.8, 0.8), 64, "body", 4)
    assert fine.object.shape == (256, 256)
    assert fine.object.dtype == fine.image.dtype == np.float32
    np.testing.assert_array_equal(coarse.object, coarse.image)
    np.testing.assert_array_equal(coarse.body, fine.body)
    blocks = fine.object.reshape(64, 4, 64, 4).mean((1, 3))
    assert np.abs(fine.image - blocks)[circle(64)].max() < 40
    assert np.abs(fine.image - blocks)[30:34, 30:34].max() < 1e-3  # no edge is near
    finest = to_grid(hu, (0.8, 0.8), 64, "body", 16)
    errors = [np.abs(s.image - finest.image).mean() for s in (coarse, fine)]
    assert errors[1] < 0.25 * errors[0]


def test_a_pixel_holds_the_mean_of_what_linear_interpolation_makes_of_the_object():
    edge = np.zeros((6, 6), np.float32)
    edge[:, 3:] = 1
    # From 0 at the middle of the third sample to 1 at that of the fourth: an eighth of a sample's
    # area lies on the left of the edge between the pixels of three samples.
    mean = area_mean(edge, 3)
    np.testing.assert_allclose(mean, [[1 / 24, 23 / 24]] * 2, rtol=1e-6)
    np.testing.assert_array_equal(area_mean(edge, 1), edge)


def test_shrinking_averages_noise_instead_of_picking_pixels():
    noise = np.random.default_rng(1).normal(0, 50, (512, 512)).astype(np.float32)
    gridded = to_grid(noise, (1.0, 1.0), 128, "image")
    inner = gridded.image[48:80, 48:80]
    assert inner.std() < 50 / 4


def test_every_real_body_lies_within_the_circle(real_ct: Path):
    source = DicomSource(real_ct)
    for patient in source.ids():
        volume = source.load(patient, limit=1)
        for hu, spacing in zip(volume.slices, volume.spacings_mm, strict=True):
            gridded = to_grid(hu, spacing, 128, "body")
            before_mm2 = body_mask(hu, spacing).sum() * spacing[0] * spacing[1]
            pixel_mm = max(np.multiply(hu.shape, spacing)) / 128 / gridded.scale
            assert gridded.body.sum() * pixel_mm**2 == pytest.approx(before_mm2, rel=0.02)
            assert 0.75 < gridded.scale <= 1
            assert 0.15 < gridded.body.mean() < 0.7
            assert (gridded.image[~circle(128)] == AIR_HU).all()

"""The measured reporter says what is there, in words that follow the anatomy."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from physfed_ray.data.anatomy import REGIONS
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.reports.measured import NOTHING, MeasuredReporter
from physfed_ray.reports.measurements import measure, smooth
from physfed_ray.reports.regions import name_region

N = 128


def disc(x: float, y: float, r: float, n: int = N) -> np.ndarray:
    """Return a bool disc; places and radius are fractions of the field of view."""
    axis = (np.arange(n) + 0.5) / n - 0.5
    return np.hypot(axis[None] - x, axis[:, None] - y) < r


def slice_of(*parts: tuple[np.ndarray, float], n: int = N) -> np.ndarray:
    image = np.full((1, n, n), -1000, np.float32)
    for mask, hu in parts:
        image[0, mask] = hu
    return image


def measured(image: np.ndarray):
    found = measure(smooth(image)[0])
    assert found is not None
    return found


@pytest.fixture(scope="module")
def phantoms() -> dict[str, np.ndarray]:
    """One volume for each region, (8, 256, 256)."""
    source = PhantomSource(len(REGIONS), 8, 3)
    return {
        name: np.stack(source.load(patient, None).slices)
        for name, patient in zip(REGIONS, source.ids(), strict=True)
    }


def real_slices(root: Path, names: list[str], n: int = 192) -> np.ndarray:
    """Read DICOM slices and put each into the middle of an (n, n) grid."""
    images = []
    for name in names:
        data = pydicom.dcmread(root / name)
        hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        hu = np.maximum(hu, -1000).astype(np.float32)
        side = max(hu.shape)
        square = np.full((side, side), -1000, np.float32)
        top, left = (side - hu.shape[0]) // 2, (side - hu.shape[1]) // 2
        square[top : top + hu.shape[0], left : left + hu.shape[1]] = hu
        images.append(ndimage.zoom(square, n / side, order=1)[:n, :n])
    stack = np.stack(images)
    stack[:, ~disc(0, 0, 0.5, n)] = -1000
    return stack


def test_areas_are_measured_to_a_percent():
    body, fat, lung = disc(0, 0, 0.4), disc(0.1, 0.1, 0.15), disc(-0.15, -0.1, 0.12)
    m = measured(slice_of((body, 40), (fat, -100), (lung, -850)))
    # Blurring loses a thin rim of each part: allow 2.5% of the body.
    assert m.field_share == pytest.approx(0.64, abs=0.02)
    assert m.fat.share == pytest.approx((0.15 / 0.4) ** 2, abs=0.025)
    assert m.lung.share == pytest.approx((0.12 / 0.4) ** 2, abs=0.025)
    assert m.width == pytest.approx(0.8, abs=0.02)
    assert m.soft_hu == pytest.approx(40, abs=1)


def test_places_follow_the_patients_sides():
    body, lung = disc(0, 0, 0.4), disc(-0.2, 0.15, 0.1)
    m = measured(slice_of((body, 40), (lung, -850)))
    assert m.lung.right == 1.0
    assert m.lung.front == pytest.approx(0, abs=0.05)


def test_mirroring_swaps_right_and_left_and_keeps_the_rest(phantoms):
    for volume in phantoms.values():
        image = volume[3:4]
        here, there = measured(image), measured(image[..., ::-1])
        assert here.fat.share == pytest.approx(there.fat.share, abs=0.01)
        assert here.bone.share == pytest.approx(there.bone.share, abs=0.01)
        assert here.symmetry == pytest.approx(there.symmetry, abs=0.05)
        assert here.soft.right == pytest.approx(1 - there.soft.right, abs=0.06)


def test_gas_is_not_lung_and_contrast_is_not_bone():
    body = disc(0, 0, 0.4)
    gas = measured(slice_of((body, 40), (disc(0, 0, 0.1), -1000)))
    assert gas.lung.share == 0
    assert gas.gas.share > 0.04
    vessel = measured(slice_of((body, 40), (disc(0, 0, 0.08), 260)))
    assert vessel.bone.share == 0
    assert vessel.contrast.share > 0.02
    bone = measured(slice_of((body, 40), (disc(0, 0, 0.1), 900), (disc(0, 0, 0.06), 100)))
    assert bone.bone.share > 0.02
    assert bone.marrow > 0.1


def test_metal_and_bodies_are_counted():
    two = slice_of((disc(-0.23, 0, 0.2), 40), (disc(0.23, 0, 0.2), 40), (disc(-0.2, 0, 0.03), 5000))
    m = measured(two)
    assert m.bodies == 2
    assert m.metal > 0
    text = MeasuredReporter(MeasuredReporter.Settings()).report(two)[0]
    assert "wo separate" in text
    assert "Metal" in text
    arm = measured(slice_of((disc(-0.1, 0, 0.3), 40), (disc(0.35, 0, 0.08), 40)))
    assert (arm.bodies, arm.small_bodies) == (1, 1)


def test_empty_slices_and_no_slices():
    reporter = MeasuredReporter(MeasuredReporter.Settings())
    air = np.full((2, N, N), -1000, np.float32)
    assert reporter.report(air) == [NOTHING] * 2
    assert reporter.report(air[:0]) == []
    everything = reporter.report(np.full((1, N, N), 3000, np.float32))[0]
    assert "Metal" in everything


def test_reports_are_deterministic_and_do_not_depend_on_the_batch(phantoms):
    volume = phantoms["abdomen"]
    reporter = MeasuredReporter(MeasuredReporter.Settings())
    together = reporter.report(volume)
    assert together == MeasuredReporter(MeasuredReporter.Settings()).report(volume.copy())
    assert together == [reporter.report(image[None])[0] for image in volume]


def test_noise_hardly_changes_what_is_found(phantoms):
    rng = np.random.default_rng(5)
    same = []
    for volume in phantoms.values():
        noisy = volume + rng.normal(0, 80, volume.shape).astype(np.float32)
        for clean_image, noisy_image in zip(volume, noisy, strict=True):
            clean, low = measured(clean_image[None]), measured(noisy_image[None])
            same.append(name_region(clean) == name_region(low))
            assert low.field_share == pytest.approx(clean.field_share, abs=0.02)
            assert low.lung.share == pytest.approx(clean.lung.share, abs=0.03)
            assert low.fat.share == pytest.approx(clean.fat.share, abs=0.12)
    assert np.mean(same) >= 0.95


def test_grid_size_does_not_change_the_region(phantoms):
    for volume in phantoms.values():
        small = volume.reshape(8, 128, 2, 128, 2).mean((2, 4))
        regions = [name_region(measured(image[None])) for image in volume]
        assert [name_region(measured(image[None])) for image in small] == regions


def test_wording_follows_the_anatomy(phantoms):
    words = {}
    for name, volume in phantoms.items():
        text = " ".join(MeasuredReporter(MeasuredReporter.Settings()).report(volume))
        words[name] = {word for word in text.lower().split() if word.isalpha()}
    names = list(words)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            shared = len(words[one] & words[other]) / len(words[one] | words[other])
            assert shared < 0.8, (one, other, shared)


def test_real_ct_is_recognised(real_ct):
    expected = {
        "covid_19_ny_sbu/A062055/000.dcm": "abdomen",
        "covid_19_ny_sbu/A027284/000.dcm": "abdomen",
        "covid_19_ny_sbu/A048383/000.dcm": "chest",
        "lung_pet_ct_dx/A0001/006.dcm": "chest",
        "lung_pet_ct_dx/A0002/012.dcm": "chest",
        "soft_tissue_sarcoma/STS_009/008.dcm": "limb",
        "soft_tissue_sarcoma/STS_027/008.dcm": "limb",
    }
    images = real_slices(real_ct, list(expected))
    noisy = images + np.random.default_rng(1).normal(0, 60, images.shape).astype(np.float32)
    for stack in (images, noisy):
        assert [name_region(measured(image[None])) for image in stack] == list(expected.values())
    texts = MeasuredReporter(MeasuredReporter.Settings()).report(images)
    assert "mainly on the right, as the liver is" in texts[1]
    assert "limb" in texts[-1]

"""The perceptual and the Frechet distance: by hand, as distances, and on what they are for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from physfed_ray.data.phantom import PhantomSource
from physfed_ray.metrics import scoring
from physfed_ray.metrics.base import Images, Scores
from physfed_ray.metrics.scoring import score_slices
from physfed_ray.metrics.trunk_distances import frechet_distance, perceptual_distance
from physfed_ray.window import normalise

WINDOW = (-1000.0, 2000.0)
SOFT = {"soft": (-160.0, 240.0)}
PD, FD = "pd_efflite0", "fd_efflite0"
NAMES = [f"{name}{window}" for name in (PD, FD) for window in ("", "[-160,240]")]
NOISE_HU = (0, 5, 15, 45)
BLUR_PIXELS = (0, 0.7, 1.2, 2.5)


def _distances(denoised: Images, full: Images) -> Scores:
    scaled = (normalise(images, WINDOW) for images in (denoised, full))
    scores = score_slices(*scaled, np.ones(full.shape, bool), WINDOW, SOFT, optional=(PD, FD))
    return {name: scores[name] for name in NAMES}


def _phantoms() -> Images:
    source = PhantomSource(3, 2, seed=1, size=64)
    return np.concatenate([source.load(patient, None).slices for patient in source.ids()]).reshape(
        -1, 64, 64
    )


def _noisy(full: Images, sigma_hu: float) -> Images:
    noise = np.random.default_rng(0).standard_normal(full.shape)
    return (full + sigma_hu * noise).astype(np.float32)


def _blurred(full: Images, sigma: float) -> Images:
    return np.stack([gaussian_filter(image, sigma) for image in full])


@pytest.fixture(scope="module")
def full() -> Images:
    """Return slices of phantoms, (6, 64, 64) HU."""
    return _phantoms()


def test_frechet_distance_by_hand() -> None:
    """Means 2 and 5, deviations sqrt(2) and 3 sqrt(2) of n - 1; a second feature is equal."""
    x, y = np.array([[1.0, 7.0], [3.0, 8.0]]), np.array([[2.0, 7.0], [8.0, 8.0]])
    assert frechet_distance(x, y) == pytest.approx(3**2 + (2 * 2**0.5) ** 2)


def test_of_independent_features_it_is_the_distance_of_the_gaussians() -> None:
    """The formula with matrices, whose off-diagonal entries are 0."""
    x, y = np.random.default_rng(0).normal([[[0.0]], [[1.0]]], [[[1.0]], [[3.0]]], (2, 50, 4))
    c, d = (np.diag(features.var(axis=0, ddof=1)) for features in (x, y))
    matrices = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c + d - 2 * sqrtm(c @ d))
    assert frechet_distance(x, y) == pytest.approx(matrices.real)


def test_frechet_distance_is_symmetric_and_wants_two_slices() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert frechet_distance(x, y) == frechet_distance(y, x)
    assert np.isnan(frechet_distance(x[:1], y[:1]))


def test_perceptual_distance_by_hand() -> None:
    """Two stages. First: one of two pixels turns by a right angle, lengths do not count."""
    x = [torch.tensor([[[3.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[[1.0]], [[0.0]]])]
    y = [torch.tensor([[[1.0, 0.0]], [[0.0, 5.0]]]), torch.tensor([[[-1.0]], [[0.0]]])]
    assert perceptual_distance(x, y) == pytest.approx(((0 + 2) / 2 + 4) / 2)
    nothing = [torch.zeros(2, 1, 1)]
    assert perceptual_distance(nothing, nothing) == 0


def test_equal_images_have_no_distance(full: Images) -> None:
    for name, values in _distances(full, full).items():
        np.testing.assert_array_equal(values, np.zeros(() if name.startswith(FD) else len(full)))


def test_both_are_symmetric(full: Images) -> None:
    noisy = _noisy(full, 20)
    there, back = _distances(noisy, full), _distances(full, noisy)
    for name in NAMES:
        np.testing.assert_allclose(there[name], back[name], rtol=1e-6)


@pytest.mark.parametrize(("spoil", "levels"), [(_noisy, NOISE_HU), (_blurred, BLUR_PIXELS)])
def test_they_grow_with_noise_and_with_blur(
    full: Images, spoil: Callable[[Images, float], Images], levels: tuple[float, ...]
) -> None:
    found = [_distances(spoil(full, level), full) for level in levels]
    for name in NAMES:
        assert (np.diff([scores[name].mean() for scores in found]) > 0).all()


@pytest.mark.parametrize(("spoil", "levels"), [(_noisy, NOISE_HU), (_blurred, BLUR_PIXELS)])
def test_so_they_do_on_real_ct(
    real_ct: Path, spoil: Callable[[Images, float], Images], levels: tuple[float, ...]
) -> None:
    files = sorted((real_ct / "covid_19_ny_sbu").rglob("*.dcm"))[::3]
    images = [pydicom.dcmread(file) for file in files]
    full = np.stack(
        [
            np.clip(i.pixel_array * float(i.RescaleSlope) + float(i.RescaleIntercept), *WINDOW)
            .reshape(128, 4, 128, 4)
            .mean(axis=(1, 3), dtype=np.float32)
            for i in images
        ]
    )
    found = [_distances(spoil(full, level), full) for level in levels]
    for name in NAMES:
        assert (np.diff([scores[name].mean() for scores in found]) > 0).all()


def test_neither_order_nor_company_matters(full: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice has the same bits in any chunk; a set's sums may differ in their last ones."""
    noisy = _noisy(full, 20)
    whole = _distances(noisy, full)
    order = np.random.default_rng(1).permutation(len(full))
    shuffled = _distances(noisy[order], full[order])
    monkeypatch.setattr(scoring, "_CHUNK_PIXELS", 2 * 64 * 64)
    in_twos = _distances(noisy, full)
    for name in NAMES:
        np.testing.assert_array_equal(in_twos[name], whole[name])
        if name.startswith(FD):
            np.testing.assert_allclose(shuffled[name], whole[name], rtol=1e-9)
        else:
            np.testing.assert_array_equal(shuffled[name], whole[name][order])


def test_one_slice_is_no_set(full: Images) -> None:
    scores = _distances(_noisy(full[:1], 20), full[:1])
    assert scores[PD] > 0
    assert np.isnan(scores[FD])

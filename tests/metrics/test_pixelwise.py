"""Metrics: equal to scikit-image, windowed as named, masked as said."""

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from physfed_ray.metrics.base import Context, metric_name
from physfed_ray.metrics.pixelwise import PSNR_CAP_DB, Psnr, Rmse, Ssim
from physfed_ray.metrics.scoring import score_slices

WINDOW = (-1000.0, 2000.0)
METRICS = {metric.name: metric for metric in (Psnr(), Ssim(), Rmse())}
CLINICAL = {"soft": (-160.0, 240.0), "lung": (-1350.0, 150.0)}


def _images(n: int = 75, count: int = 3) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return CT-like references in HU and noisy versions that leave the window at both ends."""
    rng = np.random.default_rng(3)
    yy, xx = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    disk = (xx**2 / 0.8 + yy**2 / 0.5 < 0.9).astype(np.float32)
    bone = ((xx - 0.2) ** 2 + (yy - 0.1) ** 2 < 0.02).astype(np.float32)
    reference = np.stack([-1000 + disk * (1040 + 20 * k) + bone * 1200 for k in range(count)])
    low = reference + rng.normal(0, [[[20.0]], [[60.0]], [[150.0]]], reference.shape)
    return low.astype(np.float32), reference.astype(np.float32)


def _scale(hu: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float64]:
    return np.clip((hu.astype(np.float64) - window[0]) / (window[1] - window[0]), 0, 1)


def _reference_ssim(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(
        structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
    )


@pytest.mark.parametrize("window", [WINDOW, *CLINICAL.values()])
def test_metrics_equal_scikit_image_in_every_window(window: tuple[float, float]) -> None:
    low, full = _images()
    x, y = _scale(low, window), _scale(full, window)
    for index in range(len(x)):
        expected = {
            "psnr": peak_signal_noise_ratio(y[index], x[index], data_range=1.0),
            "ssim": _reference_ssim(x[index], y[index]),
            "rmse_hu": np.sqrt(((x[index] - y[index]) ** 2).mean()) * (window[1] - window[0]),
        }
        for name, metric in METRICS.items():
            assert metric(low, full, Context(window))[index] == pytest.approx(
                expected[name], abs=1e-4
            )


def test_score_slices_equals_the_single_metrics() -> None:
    low, full = _images()
    x, y = (_scale(z, WINDOW).astype(np.float32) for z in (low, full))
    scores = score_slices(x, y, np.ones(x.shape, np.uint8), WINDOW, CLINICAL)
    for name, metric in METRICS.items():
        np.testing.assert_allclose(scores[name], metric(low, full, Context(WINDOW)), atol=2e-4)
    for window in CLINICAL.values():
        clipped = [np.clip(z, *WINDOW) for z in (low, full)]
        for base in ("psnr", "ssim"):
            expected = METRICS[base](clipped[0], clipped[1], Context(window))
            np.testing.assert_allclose(scores[metric_name(base, window)], expected, atol=2e-4)
    assert {"psnr[-160,240]", "ssim[-1350,150]"} < set(scores)


def test_body_metrics_look_at_the_body_alone() -> None:
    low, full = _images()
    x, y = (_scale(z, WINDOW).astype(np.float32) for z in (low, full))
    body = np.zeros(x.shape, bool)
    body[:, 30:50, 20:60] = True
    scores = score_slices(x, y, body, WINDOW, {})
    for index in range(len(x)):
        error = (x[index].astype(np.float64) - y[index])[body[index]] ** 2
        assert scores["psnr_body"][index] == pytest.approx(-10 * np.log10(error.mean()), abs=1e-6)
        _, similarity = structural_similarity(
            x[index].astype(np.float64),
            y[index].astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )
        expected = similarity[body[index]].mean()
        assert scores["ssim_body"][index] == pytest.approx(expected, abs=1e-4)
    changed = x.copy()
    changed[:, :10] = 0.5
    after = score_slices(changed, y, body, WINDOW, {})
    np.testing.assert_array_equal(after["psnr_body"], scores["psnr_body"])
    assert (after["psnr"] < scores["psnr"]).all()


def test_equal_images_reach_the_cap_and_one() -> None:
    _, full = _images()
    y = _scale(full, WINDOW).astype(np.float32)
    scores = score_slices(y, y, np.ones(y.shape, bool), WINDOW, CLINICAL)
    np.testing.assert_array_equal(scores["psnr"], PSNR_CAP_DB)
    np.testing.assert_allclose(scores["ssim"], 1.0, atol=1e-12)
    np.testing.assert_array_equal(scores["rmse_hu"], 0.0)


def test_a_slice_without_body_scores_nan_on_the_body_only() -> None:
    low, full = _images()
    x, y = (_scale(z, WINDOW).astype(np.float32) for z in (low, full))
    body = np.ones(x.shape, np.uint8)
    body[1] = 0
    scores = score_slices(x, y, body, WINDOW, CLINICAL)
    assert np.isnan(scores["psnr_body"]).tolist() == [False, True, False]
    assert np.isnan(scores["ssim_body"]).tolist() == [False, True, False]
    assert not np.isnan(scores["psnr"]).any()


def test_values_outside_the_window_count_as_its_ends() -> None:
    low, full = _images()
    x, y = ((z - WINDOW[0]) / (WINDOW[1] - WINDOW[0]) for z in (low, full))
    body = np.ones(x.shape, np.uint8)
    assert x.min() < 0
    clipped = score_slices(np.clip(x, 0, 1), np.clip(y, 0, 1), body, WINDOW, CLINICAL)
    for name, values in score_slices(x, y, body, WINDOW, CLINICAL).items():
        np.testing.assert_array_equal(values, clipped[name])


def test_a_score_does_not_depend_on_its_neighbours() -> None:
    low, full = _images(128)
    x, y = (np.tile(_scale(z, WINDOW).astype(np.float32), (13, 1, 1)) for z in (low, full))
    body = np.ones(x.shape, np.uint8)
    many = score_slices(x, y, body, WINDOW, CLINICAL)
    few = score_slices(x[:3], y[:3], body[:3], WINDOW, CLINICAL)
    for name, values in few.items():
        assert len(many[name]) == 39
        np.testing.assert_allclose(many[name], np.tile(values, 13), rtol=1e-12)

"""Noise power: Parseval's theorem, the units, and which frequencies are found where."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from physfed_ray.metrics.base import Context
from physfed_ray.metrics.noise_power import NOISE_POWER, power_spectrum, radial_average

PIXEL_MM = 0.7
NYQUIST_PER_MM = 0.5 / PIXEL_MM
Images = NDArray[np.float32]


def _noise(count: int = 2, n: int = 256, sigma: float = 30.0, blur: float = 0.0) -> Images:
    noise = np.random.default_rng(1).normal(0, sigma, (count, n, n))
    return gaussian_filter(noise, (0, blur, blur)).astype(np.float32)


def _scores(
    error: Images, body: NDArray[np.uint8] | None = None, pixel_mm: float = PIXEL_MM
) -> dict[str, NDArray[np.float64]]:
    full = np.full(error.shape, 40, np.float32)
    inside = np.ones(error.shape, np.uint8) if body is None else body
    denoised, context = full + error, Context((-1000.0, 2000.0), inside, pixel_mm)
    return {metric.name: metric(denoised, full, context) for metric in NOISE_POWER}


def test_the_spectrum_integrates_to_the_variance_within_the_regions() -> None:
    error = _noise(1)[0].astype(np.float64)
    spectrum = power_spectrum(error, np.ones(error.shape, bool), PIXEL_MM)
    assert spectrum is not None
    assert spectrum.shape == (32, 32)
    variances = [
        error[r : r + 32, c : c + 32].var() for r in range(0, 225, 16) for c in range(0, 225, 16)
    ]
    width = 1 / (32 * PIXEL_MM)
    assert spectrum.sum() * width**2 == pytest.approx(np.mean(variances), rel=1e-12)


def test_white_noise_is_flat_at_its_variance_times_the_pixel_area() -> None:
    error = _noise(1)[0].astype(np.float64)
    spectrum = power_spectrum(error, np.ones(error.shape, bool), PIXEL_MM)
    assert spectrum is not None
    frequency, average = radial_average(spectrum, PIXEL_MM)
    np.testing.assert_allclose(frequency, np.linspace(0, NYQUIST_PER_MM, 17))
    np.testing.assert_allclose(average[2:], 30.0**2 * PIXEL_MM**2, rtol=0.15)
    scores = _scores(_noise())
    np.testing.assert_allclose(scores["nps_area_hu2"], 30.0**2, rtol=0.02)
    rings = np.arange(1, 17)  # without frequency 0, which the regions' means take away
    expected = rings.mean() / 16 * NYQUIST_PER_MM
    np.testing.assert_allclose(scores["nps_mean_per_mm"], expected, rtol=0.02)


def test_blurred_noise_has_less_area_and_lower_frequencies() -> None:
    blurred = [_scores(_noise(blur=blur)) for blur in (0.0, 0.7, 1.5)]
    for name in ("nps_area_hu2", "nps_mean_per_mm"):
        values = np.array([scores[name] for scores in blurred])
        assert (np.diff(values, axis=0) < 0).all(), name


def test_a_wave_is_found_at_its_frequency_with_its_variance() -> None:
    columns = np.arange(128)
    for cycles in (2, 5):
        wave = 20 * np.sin(2 * np.pi * cycles / 16 * columns)
        scores = _scores(np.broadcast_to(wave, (1, 128, 128)).astype(np.float32))
        expected = cycles / 16 / PIXEL_MM
        assert scores["nps_peak_per_mm"] == pytest.approx([expected])
        assert scores["nps_mean_per_mm"] == pytest.approx([expected], rel=1e-4)
        assert scores["nps_area_hu2"] == pytest.approx([200.0], rel=1e-4)


def test_a_larger_pixel_lowers_the_frequencies_and_leaves_the_area() -> None:
    fine, coarse = _scores(_noise(blur=1.0)), _scores(_noise(blur=1.0), pixel_mm=2 * PIXEL_MM)
    np.testing.assert_allclose(coarse["nps_area_hu2"], fine["nps_area_hu2"], rtol=1e-12)
    for name in ("nps_mean_per_mm", "nps_peak_per_mm"):
        np.testing.assert_allclose(coarse[name], fine[name] / 2, rtol=1e-12)


def test_it_looks_at_the_body_alone() -> None:
    error = _noise(3)
    body = np.zeros(error.shape, np.uint8)
    body[:2, 60:200, 40:220] = 1
    scores = _scores(error, body)
    outside = error.copy()
    outside[:, :50] += 500
    for name, values in _scores(outside, body).items():
        np.testing.assert_array_equal(values, scores[name])
        assert np.isnan(values).tolist() == [False, False, True]  # the third slice has no body


def test_a_constant_error_is_no_noise() -> None:
    scores = _scores(np.full((1, 64, 64), 7, np.float32))
    assert scores["nps_area_hu2"] == [0.0]
    assert np.isnan(scores["nps_mean_per_mm"]).all()
    assert np.isnan(scores["nps_peak_per_mm"]).all()

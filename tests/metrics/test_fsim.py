"""FSIM: equal to the paper's steps written out, and with the properties that the paper states."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from physfed_ray.metrics.base import Context
from physfed_ray.metrics.fsim import Fsim, phase_congruency

WINDOW = (-1000.0, 2000.0)
PIQ_NOISY, PIQ_BLURRED = (0.89651, 0.89527), (0.79271, 0.79268)
Image = NDArray[np.float64]


def fsim(
    denoised: NDArray[np.float32], reference: NDArray[np.float32], window: tuple[float, float]
) -> Image:
    """Return the metric in a window."""
    return Fsim()(denoised, reference, Context(window))


def _slices(n: int = 64, count: int = 2) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return bodies with organs and bone in HU, and noisy scans of them."""
    yy, xx = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    full = np.full((count, n, n), -1000.0)
    for k in range(count):
        full[k][xx**2 / 0.8 + yy**2 / 0.5 < 0.9] = 40
        full[k][(xx + 0.3) ** 2 / 0.06 + yy**2 / 0.1 < 1] = -800
        full[k][(xx - 0.3) ** 2 + (yy - 0.1 * k) ** 2 < 0.04] = 110
        full[k][xx**2 + (yy - 0.4) ** 2 < 0.02] = 900
    noise = np.random.default_rng(5).normal(0, 60, full.shape)
    return (full + noise).astype(np.float32), full.astype(np.float32)


def _frequencies(n: int) -> tuple[Image, Image]:
    row = np.fft.ifftshift((np.arange(n) - n // 2) / n)
    return np.meshgrid(row, row)


def _slow_congruency(image: Image) -> Image:
    """Kovesi's PC2, one orientation and one scale after the other, in the words of his paper."""
    n = len(image)
    u, v = _frequencies(n)
    radius = np.sqrt(u**2 + v**2)
    angle = np.arctan2(-v, u)
    energy_of_all, amplitude_of_all = np.zeros((n, n)), np.zeros((n, n))
    for orientation in range(4):
        theta = orientation * math.pi / 4
        cosine = np.clip(np.cos(angle) * math.cos(theta) + np.sin(angle) * math.sin(theta), -1, 1)
        spread = np.exp(-(np.arccos(cosine) ** 2) / (2 * (math.pi / 4 / 1.2) ** 2))
        filters = []
        for scale in range(4):
            centre = 1 / (6 * 2**scale)
            with np.errstate(divide="ignore"):
                radial = np.exp(-(np.log(radius / centre) ** 2) / (2 * math.log(0.55) ** 2))
            radial[0, 0] = 0
            filters.append(radial / (1 + (radius / 0.45) ** 30) * spread)
        responses = [np.fft.ifft2(np.fft.fft2(image) * f) for f in filters]
        even, odd = sum(r.real for r in responses), sum(r.imag for r in responses)
        length = np.sqrt(even**2 + odd**2) + 1e-4
        energy = np.zeros((n, n))
        for r in responses:
            energy += (r.real * even + r.imag * odd) / length
            energy -= np.abs(r.real * odd - r.imag * even) / length
        mean_square = -np.median(np.abs(responses[0]) ** 2) / math.log(0.5)
        power = mean_square / (filters[0] ** 2).sum()
        impulses = [np.fft.ifft2(f).real * n for f in filters]
        squares = sum((i**2).sum() for i in impulses)
        products = sum((impulses[i] * impulses[j]).sum() for j in range(4) for i in range(j))
        tau = math.sqrt((2 * power * squares + 4 * power * products) / 2)
        noise = tau * math.sqrt(math.pi / 2) + 2 * math.sqrt((2 - math.pi / 2) * tau**2)
        energy_of_all += np.maximum(energy - noise / 1.7, 0)
        amplitude_of_all += sum(np.abs(r) for r in responses)
    return energy_of_all / amplitude_of_all


def _slow_fsim(x: Image, y: Image) -> float:
    """FSIM of two images of 0 to 255, eq. 3 to 8 of Zhang et al. 2011."""
    scharr = np.array([[3, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16
    px, py = _slow_congruency(x), _slow_congruency(y)
    gx, gy = (
        np.hypot(convolve2d(z, scharr, "same"), convolve2d(z, scharr.T, "same")) for z in (x, y)
    )
    similarity = (2 * px * py + 0.85) / (px**2 + py**2 + 0.85)
    similarity *= (2 * gx * gy + 160) / (gx**2 + gy**2 + 160)
    weight = np.maximum(px, py)
    return float((similarity * weight).sum() / weight.sum())


def _grey(hu: NDArray[np.float32], window: tuple[float, float]) -> Image:
    scaled = (hu.astype(np.float64) - window[0]) / (window[1] - window[0])
    return np.asarray(255 * np.clip(scaled, 0, 1))


@pytest.mark.parametrize("n", [64, 51])
@pytest.mark.parametrize("window", [WINDOW, (-160.0, 240.0)])
def test_it_equals_the_paper_written_out(n: int, window: tuple[float, float]) -> None:
    low, full = _slices(n)
    expected = [
        _slow_fsim(_grey(x, window), _grey(y, window)) for x, y in zip(low, full, strict=True)
    ]
    np.testing.assert_allclose(fsim(low, full, window), expected, rtol=1e-10)


def test_it_equals_an_implementation_that_others_use() -> None:
    """The numbers are those of piq 0.8.0, which follows the authors' program."""
    low, full = _slices(64)
    blurred = gaussian_filter(full, (0, 1.5, 1.5))
    np.testing.assert_allclose(fsim(low, full, WINDOW), PIQ_NOISY, atol=2e-4)
    np.testing.assert_allclose(fsim(blurred, full, WINDOW), PIQ_BLURRED, atol=2e-4)


def test_large_images_are_compared_at_about_256_pixels() -> None:
    low, full = _slices(256, count=1)
    twice = [np.kron(images, np.ones((2, 2), np.float32)) for images in (low, full)]
    np.testing.assert_allclose(fsim(*twice, WINDOW), fsim(low, full, WINDOW), rtol=1e-12)


def test_it_is_one_for_equal_images_symmetric_and_less_for_worse_ones() -> None:
    low, full = _slices()
    np.testing.assert_allclose(fsim(full, full, WINDOW), 1.0, rtol=1e-12)
    np.testing.assert_allclose(fsim(low, full, WINDOW), fsim(full, low, WINDOW), rtol=1e-12)
    scores = [fsim(full + share * (low - full), full, WINDOW).mean() for share in (0.2, 0.5, 1)]
    assert 1 > scores[0] > scores[1] > scores[2] > 0
    blurs = [fsim(gaussian_filter(full, (0, s, s)), full, WINDOW).mean() for s in (0.5, 1, 2)]
    assert 1 > blurs[0] > blurs[1] > blurs[2] > 0


def test_congruency_marks_features_whatever_their_contrast() -> None:
    """Phase congruency is dimensionless: a step of 4 grey levels is a feature like one of 40."""
    step = torch.zeros(1, 64, 64, dtype=torch.float64)
    step[:, :, 32:] = 1.0
    weak, strong = (phase_congruency(100 + height * step)[0] for height in (4.0, 40.0))
    torch.testing.assert_close(weak, strong, rtol=0, atol=1e-3)
    assert int(strong[32, 8:56].argmax()) + 8 in (31, 32)
    assert strong[32, 31] > 0.7
    assert strong[32, 31] > 2 * strong[32, 20]


def test_without_any_feature_there_is_no_score() -> None:
    flat = np.full((1, 32, 32), -1000, np.float32)
    assert np.isnan(fsim(flat, flat, WINDOW)).all()


def test_a_score_depends_on_its_window_and_not_on_its_neighbours() -> None:
    low, full = _slices(count=2)
    many = fsim(np.tile(low, (3, 1, 1)), np.tile(full, (3, 1, 1)), WINDOW)
    np.testing.assert_allclose(many, np.tile(fsim(low, full, WINDOW), 3), rtol=1e-12)
    assert len(fsim(low[:0], full[:0], WINDOW)) == 0
    soft = (-160.0, 240.0)
    clipped = [np.clip(images, *soft) for images in (low, full)]
    np.testing.assert_array_equal(fsim(*clipped, soft), fsim(low, full, soft))
    assert (fsim(low, full, soft) != fsim(low, full, WINDOW)).all()

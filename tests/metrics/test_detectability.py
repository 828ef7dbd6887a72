"""Detectability: theory in white noise, chance without a disc, and blurs that gain nothing."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from physfed_ray.metrics import detectability
from physfed_ray.metrics.base import Context
from physfed_ray.metrics.detectability import (
    CHANNELS,
    DETECTABILITY,
    WIDTH,
    channels,
    d_prime,
    separation,
)
from physfed_ray.metrics.discs import KINDS, DiscPhantom, Discs
from physfed_ray.metrics.edges import EdgePhantom
from physfed_ray.metrics.phantoms import BACKGROUND_HU

SIDE, PIXEL_MM = 128, 1.2
SCANS = 400
LARGE = 3
"""Discs of 12 mm and 20 HU."""


@pytest.fixture(scope="module")
def discs() -> Discs:
    return DiscPhantom().make(SIDE, PIXEL_MM)


def scanned(discs: Discs, sigma: float, seed: int = 0, scans: int = SCANS) -> np.ndarray:
    """Return scans with white noise, with discs and without."""
    noise = np.random.default_rng(seed).normal(0, sigma, (2 * scans, SIDE, SIDE))
    return (np.repeat(discs.objects, scans, axis=0) + noise).astype(np.float32)


def test_the_objects_differ_by_discs_of_their_sizes_and_contrasts(discs: Discs) -> None:
    difference = (discs.objects[0] - discs.objects[1]).astype(np.float64)
    axis = np.arange(SIDE)
    for (diameter, contrast), centres in zip(KINDS, discs.centres, strict=True):
        radius = diameter / 2 / PIXEL_MM
        for row, column in centres:
            near = np.hypot(axis[:, None] - row, axis[None] - column) < radius + 2
            area = difference[near].sum() / contrast
            assert area == pytest.approx(math.pi * radius**2, rel=0.03)
            assert difference[round(row), round(column)] == pytest.approx(contrast)
    total = sum(2 * c * math.pi * (d / 2 / PIXEL_MM) ** 2 for d, c in KINDS)
    assert difference.sum() == pytest.approx(total, rel=0.02)
    assert discs.objects[1][SIDE // 2, SIDE // 2] == BACKGROUND_HU


def test_channels_are_orthonormal_where_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(detectability, "SIGHT", 4.0)
    axis = np.arange(-60, 61) + 0.3
    u = channels(np.hypot(axis[:, None], axis[None] - 0.2), 15.0).reshape(CHANNELS, -1)
    np.testing.assert_allclose(u @ u.T, np.eye(CHANNELS), atol=1e-3)
    assert u[0].max() == pytest.approx(math.sqrt(2) / (WIDTH * 15), rel=1e-2)


def test_in_white_noise_the_observer_is_nearly_the_ideal_one(discs: Discs) -> None:
    """The ideal d' is the disc's norm over sigma; few channels see a little less."""
    sigma = 60.0
    diameter, contrast = KINDS[LARGE]
    ideal = contrast * math.sqrt(math.pi * (diameter / 2 / PIXEL_MM) ** 2) / sigma
    found = d_prime(scanned(discs, sigma), discs, LARGE, diameter / PIXEL_MM)
    assert found[""] == pytest.approx(ideal, rel=0.12)
    assert found["low"] < found[""] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(
        2 * 1.96 * math.sqrt((1 + ideal**2 / 8) / SCANS * 2), rel=0.4
    )


def test_detectability_goes_with_contrast_over_noise(discs: Discs) -> None:
    diameter = KINDS[LARGE][0] / PIXEL_MM
    quiet, loud = (d_prime(scanned(discs, s), discs, LARGE, diameter)[""] for s in (30.0, 60.0))
    assert quiet == pytest.approx(2 * loud, rel=0.1)


def test_without_a_disc_there_is_chance(discs: Discs) -> None:
    """The template is trained on other scans: trained on the same, it would find the noise."""
    noise = np.random.default_rng(3).normal(0, 20, (128, SIDE, SIDE)).astype(np.float32)
    found = [d_prime(noise, discs, k, d / PIXEL_MM)[""] for k, (d, _) in enumerate(KINDS)]
    assert np.abs(found).max() < 0.5
    assert abs(np.mean(found)) < 0.25


def test_a_blur_raises_psnr_and_gains_nothing(discs: Discs) -> None:
    images = scanned(discs, 60.0)
    smooth = gaussian_filter(images, (0, 1.5, 1.5))
    inside = (slice(None), slice(30, 98), slice(30, 98))
    clean = np.repeat(discs.objects, SCANS, axis=0)[inside]
    errors = [((i[inside] - clean) ** 2).mean() for i in (smooth, images)]
    assert errors[0] < 0.1 * errors[1]
    diameter = KINDS[LARGE][0] / PIXEL_MM
    before, after = (d_prime(i, discs, LARGE, diameter)[""] for i in (images, smooth))
    assert after == pytest.approx(before, rel=0.1)


def test_a_denoiser_that_flattens_what_is_faint_loses_it(discs: Discs) -> None:
    images = scanned(discs, 15.0, scans=64)
    background = discs.objects[1]
    flattened = np.where(np.abs(images - background) < 60, background, images)
    diameter = KINDS[LARGE][0] / PIXEL_MM
    found = d_prime(flattened, discs, LARGE, diameter)[""]
    assert not found > 0.5 * d_prime(images, discs, LARGE, diameter)[""]


def test_answers_that_never_change_have_no_number() -> None:
    assert math.isnan(separation(np.zeros((2, 2, 8))))
    two = np.array([[[1.0, 3.0]], [[0.0, 2.0]]])
    assert separation(two) == pytest.approx(1 / math.sqrt(2))


def test_a_disc_within_a_pixel_and_another_phantom_are_no_task() -> None:
    coarse = DiscPhantom().make(32, 7.0)
    images = np.zeros((8, 32, 32), np.float32)
    found = {m.name: m(images, images, Context((-1000, 2000), made=coarse)) for m in DETECTABILITY}
    assert np.isnan(found["dprime_6mm_10hu"])
    edge = EdgePhantom(120).make(32, 7.0)
    with pytest.raises(TypeError, match="phantom with discs"):
        DETECTABILITY[0](images, images, Context((-1000, 2000), made=edge))

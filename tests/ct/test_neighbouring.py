"""Neighbouring views: what they have in common stays, what noise explains goes."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from physfed_ray.ct.neighbouring import denoise_views
from physfed_ray.ct.noise import add_noise
from physfed_ray.ct.protocol import PRESETS, Protocol

CIRCLE = replace(PRESETS["paper-7"], views=24, bins=189, bin_mm=5.2)
ARC = replace(CIRCLE, arc_deg=200.0)
ALL = 1e9
"""A threshold above every singular value: the first one alone is kept."""


def moving(protocol: Protocol, seed: int = 0) -> NDArray[np.float32]:
    """Two sinograms (2, views, bins) whose views resemble their neighbours, with some noise."""
    rng = np.random.default_rng(seed)
    bins = np.arange(protocol.bins) / protocol.bins
    turn = 0.1 * np.sin(2 * np.pi * np.arange(protocol.views) / protocol.views)[:, None]
    clean = 4 * np.exp(-(((bins - 0.5 - turn) / 0.15) ** 2))
    return (clean + rng.normal(0, 0.02, (2, *clean.shape))).astype(np.float32)


def constant(protocol: Protocol, level: float = 2.0) -> NDArray[np.float32]:
    bins = np.linspace(0, np.pi, protocol.bins)
    row = (level * np.sin(bins)).astype(np.float32)
    return np.broadcast_to(row, (1, protocol.views, protocol.bins)).copy()


def by_svd(
    rows: NDArray[np.float32], t: int, threshold: float, sliding: bool, closed: bool
) -> NDArray[np.float64]:
    """The same group by group, with a singular value decomposition of t x bins."""
    count = len(rows)
    starts = range(count if closed else count - t + 1) if sliding else [*range(0, count - t, t)]
    groups = [[(s + k) % count for k in range(t)] for s in starts]
    groups += [] if sliding else [list(range(count - t, count))]
    total, held = np.zeros(rows.shape), np.zeros(count)
    for group in groups:
        u, s, v = np.linalg.svd(rows[group].astype(np.float64), full_matrices=False)
        kept = s > threshold * s[0]
        total[group] += (u * s * (kept | (np.arange(t) == 0))) @ v
        held[group] += 1
    return total / held[:, None]


@pytest.mark.parametrize("protocol", [CIRCLE, ARC], ids=["circle", "arc"])
@pytest.mark.parametrize("sliding", [True, False])
@pytest.mark.parametrize("t", [2, 5, 8, 24])
def test_it_is_the_truncated_svd_of_each_group(protocol: Protocol, sliding: bool, t: int) -> None:
    measured = moving(protocol)
    found = denoise_views(measured, protocol, t, 0.03, sliding=sliding, relative_to="first")
    closed = protocol is CIRCLE
    for rows, denoised in zip(measured, found, strict=True):
        np.testing.assert_allclose(denoised, by_svd(rows, t, 0.03, sliding, closed), atol=5e-6)
    assert found.dtype == np.float32
    assert np.abs(found - measured).max() > 0.01


@pytest.mark.parametrize("sliding", [True, False])
def test_views_that_are_alike_stay(sliding: bool) -> None:
    alike = constant(CIRCLE)
    found = denoise_views(alike, CIRCLE, 4, ALL, sliding=sliding)
    np.testing.assert_allclose(found, alike, atol=1e-6)


@pytest.mark.parametrize("relative_to", ["noise", "first"])
def test_a_threshold_of_0_changes_nothing(relative_to) -> None:
    measured = moving(CIRCLE)
    found = denoise_views(measured, CIRCLE, 8, 0.0, relative_to=relative_to)
    np.testing.assert_array_equal(found, measured)
    assert not np.shares_memory(found, measured)


def test_groups_move_with_the_views() -> None:
    measured = moving(CIRCLE)
    for sliding, by in ((False, 4), (True, 1)):
        moved = denoise_views(np.roll(measured, by, 1), CIRCLE, 4, 1.5, sliding=sliding)
        there = denoise_views(measured, CIRCLE, 4, 1.5, sliding=sliding)
        np.testing.assert_allclose(moved, np.roll(there, by, 1), atol=2e-6)
    other = denoise_views(np.roll(measured, 1, 1), CIRCLE, 4, 1.5, sliding=False)
    assert np.abs(other - np.roll(measured, 1, 1)).max() > 0.01  # it does something, elsewhere
    assert np.abs(other - np.roll(there, 1, 1)).max() > 1e-3


@pytest.mark.parametrize(("protocol", "near"), [(CIRCLE, True), (ARC, False)])
def test_the_last_view_neighbours_the_first_on_a_full_circle_alone(
    protocol: Protocol, near: bool
) -> None:
    measured = moving(protocol)
    other = measured.copy()
    other[:, -1] *= 1.5
    one, two = (denoise_views(rows, protocol, 4, ALL) for rows in (measured, other))
    assert bool(np.abs(one - two)[:, 0].max() > 0.01) is near
    assert np.abs(one - two)[:, 10].max() == 0


def test_noise_of_like_views_falls_with_the_size_of_the_group() -> None:
    many = replace(CIRCLE, views=240, bins=900, bin_mm=1.1)
    clean = constant(many)
    noisy = add_noise(clean, many.photons, np.random.default_rng(1))
    before = np.var(noisy - clean)
    for t in (4, 8):
        blocks, slides = (
            np.var(denoise_views(noisy, many, t, ALL, sliding=sliding) - clean) / before
            for sliding in (False, True)
        )
        assert blocks == pytest.approx(1 / t, rel=0.1)
        triangle = (2 * t**2 + 1) / (3 * t**3)  # squares of the weights (t - |k|) / t^2
        assert slides == pytest.approx(triangle, rel=0.1)


@pytest.mark.parametrize("photons", [1e4, 1e6])
def test_a_threshold_of_1_is_what_noise_alone_gives(photons: float) -> None:
    dose = replace(CIRCLE, photons=photons, bins=1000, bin_mm=1.0)
    noisy = add_noise(constant(dose), dose.photons, np.random.default_rng(1))
    first = denoise_views(noisy, dose, 4, ALL)
    np.testing.assert_array_equal(denoise_views(noisy, dose, 4, 1.2), first)
    np.testing.assert_allclose(denoise_views(noisy, dose, 4, 0.8), noisy, atol=1e-6)


def test_more_views_than_the_scan_has_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of 25 views cannot be made of 24 views"):
        denoise_views(moving(CIRCLE), CIRCLE, 25, 1.3)

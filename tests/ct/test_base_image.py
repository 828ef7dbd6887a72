"""Streaks and noise that a scan explains, on scans whose object is finer than the image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from physfed_ray.ct.attenuation import hu_to_mu, mu_to_hu
from physfed_ray.ct.base_image import enough_views, explain, streaks_hu, total_variation
from physfed_ray.ct.noise import add_noise
from physfed_ray.ct.noise_map import noise_map_hu
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import Protocol

N, FINER = 64, 4
FEW = Protocol(48, 190, 1.2, 3.5, 350.0, 300.0, 1e7)
ENOUGH = replace(FEW, views=enough_views(N, FEW))


@pytest.fixture(scope="module")
def fine() -> np.ndarray:
    """An ellipse with lungs, a spine and ribs, (4 n, 4 n) HU."""
    side = N * FINER
    x, y = np.meshgrid(np.arange(side) - side / 2 + 0.5, side / 2 - 0.5 - np.arange(side))
    x, y = x / FINER, y / FINER
    hu = np.where((x / 28) ** 2 + (y / 20) ** 2 <= 1, 40.0, -1000.0)
    for centre in (-12, 12):
        hu[((x - centre) / 8) ** 2 + (y / 11) ** 2 <= 1] = -850
    for bx, by, r in ((0, -13, 3.5), (-22, 5, 1.5), (22, 5, 1.5), (-20, -8, 1.5), (20, -8, 1.5)):
        hu[(x - bx) ** 2 + (y - by) ** 2 <= r**2] = 900
    return hu.astype(np.float32)


@pytest.fixture(scope="module")
def label(fine: np.ndarray) -> np.ndarray:
    return fine.reshape(N, FINER, N, FINER).mean((1, 3))


def scanned(fine: np.ndarray, protocol: Protocol, seed: int | None = None) -> np.ndarray:
    """Return the image (1, n, n), HU, of a scan of the fine object; no noise without a seed."""
    mu = torch.from_numpy(hu_to_mu(fine))[None, None]
    read = FanBeam(protocol, N * FINER).project(mu)
    if seed is not None:
        rng = np.random.default_rng(seed)
        read = torch.from_numpy(add_noise(read.numpy(), protocol.photons, rng)).float()
    return mu_to_hu(FanBeam(protocol, N).fbp(read)[:, 0].numpy())


def rms(images: np.ndarray, label: np.ndarray) -> float:
    inside = label > -500
    return float(np.sqrt(np.square(images[..., inside] - label[inside]).mean()))


def test_streaks_of_few_views_are_found_in_the_image_itself(
    fine: np.ndarray, label: np.ndarray
) -> None:
    x = scanned(fine, FEW)
    found = explain(x, noise_map_hu(x, FEW), FEW)
    best = rms(scanned(fine, ENOUGH), label)  # the kernel's part
    assert rms(x, label) > 1.5 * best
    assert rms(x - found.streaks, label) < 0.75 * rms(x, label)
    assert rms(found.base, label) < rms(found.smooth, label)


def test_with_enough_views_there_are_none(fine: np.ndarray) -> None:
    x = scanned(fine, ENOUGH, seed=1)
    assert not streaks_hu(x, ENOUGH).any()
    found = explain(x, noise_map_hu(x, ENOUGH), ENOUGH)
    assert np.array_equal(found.base, found.smooth)


def test_what_grid_and_kernel_do_is_no_streak(fine: np.ndarray, label: np.ndarray) -> None:
    """B A z - z has it, for any number of views."""
    views = replace(FEW, views=ENOUGH.views - 8)
    mu = torch.from_numpy(hu_to_mu(label))[None, None]
    scanner = FanBeam(views, N)
    again = mu_to_hu(scanner.fbp(scanner.project(mu))[:, 0].numpy())
    streaks = streaks_hu(label[None].astype(np.float32), views)
    assert rms(streaks + label, label) < 0.05 * rms(again, label)


@pytest.mark.parametrize("photons", [2e4, 2e5])
def test_the_base_has_less_noise_at_every_dose(
    fine: np.ndarray, label: np.ndarray, photons: float
) -> None:
    protocol = replace(ENOUGH, photons=photons)
    x = scanned(fine, protocol, seed=2)
    base = explain(x, noise_map_hu(x, protocol), protocol).base
    flat = binary_erosion(label == 40, iterations=3)
    noise, left = (np.std(image[:, flat]) for image in (x, base))
    assert left < 0.7 * noise


def test_nothing_to_explain_changes_nothing(label: np.ndarray) -> None:
    x = label[None].astype(np.float32)
    found = explain(x, np.zeros_like(x), ENOUGH)
    assert np.array_equal(found.base, x)
    assert np.array_equal(total_variation(x, np.zeros(1)), x)
    assert explain(np.full_like(x, -1000), np.zeros_like(x), FEW).base.shape == x.shape


def test_a_shorter_arc_needs_fewer_views() -> None:
    half = replace(FEW, arc_deg=180.0)
    assert enough_views(N, half) == pytest.approx(enough_views(N, FEW) / 2, abs=8)

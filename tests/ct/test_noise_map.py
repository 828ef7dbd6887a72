"""The noise's standard deviation against the matrix of the FBP, and against drawn noise."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, hu_to_mu, inscribed_circle, mu_to_hu
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS, FLOOR_COUNTS, add_noise
from physfed_ray.ct.noise_map import noise_map, noise_map_hu, propagate, ray_variance
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import PRESETS, Protocol

N = 64
PROTOCOL = Protocol(100, 190, 1.2, 3.5, 350.0, 300.0, 5e4)
DRAWS = 320


@pytest.fixture(scope="module")
def body() -> np.ndarray:
    """An ellipse of water with a hole of air and a dense insert off its centre, (n, n) HU."""
    x, y = np.meshgrid(np.arange(N) - 31.5, 31.5 - np.arange(N))
    hu = np.where((x / 28) ** 2 + (y / 21) ** 2 <= 1, 0.0, -1000.0)
    hu[(x + 12) ** 2 + y**2 <= 36] = -900
    hu[(x - 15) ** 2 + (y - 6) ** 2 <= 20] = 1200
    return hu.astype(np.float32)


@pytest.fixture(scope="module")
def line_integrals(body: np.ndarray) -> torch.Tensor:
    """What the detector would read without noise, (1, views, bins) float64."""
    mu = torch.from_numpy(hu_to_mu(body)).double()
    return FanBeam(PROTOCOL, N).project(mu[None, None])[0]


@pytest.fixture(scope="module")
def scans(line_integrals: torch.Tensor) -> np.ndarray:
    """Reconstructions with other noise each, (DRAWS, n, n) HU."""
    rng = np.random.default_rng(5)
    noisy = [add_noise(line_integrals[0].numpy(), PROTOCOL.photons, rng) for _ in range(DRAWS)]
    return mu_to_hu(fbp(torch.from_numpy(np.stack(noisy)), PROTOCOL, N).numpy())


@pytest.mark.parametrize("kernel_mm", [None, 0.0, 9.0], ids=["default", "ramp", "wide"])
def test_it_is_the_diagonal_of_the_covariance(small: Protocol, kernel_mm: float | None) -> None:
    n, rays = 12, small.views * small.bins
    image = torch.rand(2, 1, n, n, dtype=torch.float64, generator=torch.manual_seed(0)) * 0.03
    unit = torch.eye(rays, dtype=torch.float64).view(rays, small.views, small.bins)
    matrix = fbp(unit, small, n, kernel_mm).flatten(1).T  # pixels x rays
    expected = small.photons * torch.exp(-FanBeam(small, n).project(image)).flatten(1)
    variance = (expected + 10.0) / expected**2
    slow = torch.stack([(matrix @ torch.diag(v) @ matrix.T).diagonal() for v in variance])
    fast = noise_map(image, small, kernel_mm=kernel_mm)
    torch.testing.assert_close(fast.flatten(1), slow.sqrt(), rtol=1e-9, atol=1e-15)
    assert slow.max() > 0


def test_it_is_what_drawn_noise_does(
    body: np.ndarray, line_integrals: torch.Tensor, scans: np.ndarray
) -> None:
    variance = ray_variance(line_integrals, PROTOCOL.photons, ELECTRONIC_NOISE_COUNTS)
    known = propagate(variance, PROTOCOL, N)[0].sqrt().numpy() * 1000 / MU_WATER_PER_MM
    inside, measured = body > -950, scans.std(axis=0, ddof=1)
    ratio = known[inside] / measured[inside]
    assert np.median(ratio) == pytest.approx(1, abs=0.01)
    assert ratio.std() < 1.2 / np.sqrt(2 * DRAWS)  # what Monte Carlo itself is uncertain of
    assert np.corrcoef(known[inside], measured[inside])[0, 1] > 0.9
    outside = ~inscribed_circle(N)
    assert (known[outside] == 0).all()


def test_a_low_dose_image_tells_its_own_noise(body: np.ndarray, scans: np.ndarray) -> None:
    inside, measured = body > -950, scans.std(axis=0, ddof=1)
    of_full = noise_map_hu(body[None], PROTOCOL)[0]
    of_low = noise_map_hu(scans[:8], PROTOCOL)
    assert np.median(of_full[inside] / measured[inside]) == pytest.approx(1, abs=0.01)
    for low in of_low:  # more by the noise of air, of which only what is above air counts
        assert 1.0 < np.median(low[inside] / measured[inside]) < 1.05
        assert np.abs(low[inside] / of_full[inside] - 1).max() < 0.1
        assert np.corrcoef(of_full[inside], low[inside])[0, 1] > 0.995


def test_without_electronic_noise_it_falls_as_the_root_of_the_photons(small: Protocol) -> None:
    image = torch.full((1, 1, 12, 12), 0.01)
    weak, strong = (
        noise_map(image, replace(small, photons=photons), electronic_noise=0.0)
        for photons in (1e4, 1.6e5)
    )
    torch.testing.assert_close(weak, 4 * strong)
    assert (noise_map(image, replace(small, photons=1e4)) >= weak).all()


def test_rays_read_at_least_the_floor() -> None:
    dark, floor = ray_variance(torch.tensor([80.0, math.log(1e5 / FLOOR_COUNTS)]), 1e5, 3.0)
    assert dark == pytest.approx(10)
    assert floor == pytest.approx(10)


def test_float32_holds_noise_beside_rays_that_hardly_a_photon_survives() -> None:
    image = torch.zeros(1, 1, N, N, dtype=torch.float64)
    image[..., 30:34, 30:34] = 0.8
    exact = noise_map(image, PROTOCOL)
    assert exact.max() > 3 * exact[exact > 0].min()
    single = noise_map(image.float(), PROTOCOL)
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=0)


def test_batched_slices_equal_single_ones_whatever_the_threads() -> None:
    protocol = replace(PRESETS["paper-2"], views=64)
    images = 0.02 * torch.rand(3, 1, 32, 32, generator=torch.manual_seed(0))
    threads = torch.get_num_threads()
    together = noise_map(images, protocol)
    try:
        torch.set_num_threads(threads + 1)
        assert torch.equal(noise_map(images, protocol), together)
    finally:
        torch.set_num_threads(threads)
    single = torch.cat([noise_map(image[None], protocol) for image in images])
    torch.testing.assert_close(together, single, rtol=1e-5, atol=0)


@pytest.mark.cuda
def test_a_gpu_gives_the_same_map(small: Protocol) -> None:
    images = 0.02 * torch.rand(2, 1, 12, 12, generator=torch.manual_seed(0))
    there = noise_map(images.cuda(), small).cpu()
    torch.testing.assert_close(there, noise_map(images, small), rtol=1e-4, atol=1e-9)

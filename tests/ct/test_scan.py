"""What low-dose images look like: noise, streaks, air."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, inscribed_circle
from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.ct.scan import expect, scan
from physfed_ray.ct.simulation import Simulation, fine_detector

PAPER_1 = PRESETS["paper-1"]
N = 64
NO_NOISE = 1e15


def streams(*seeds: int) -> Sequence[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def scanned(
    hu: np.ndarray,
    protocol: Protocol,
    rngs: Sequence[np.random.Generator],
    electronic_noise: float = ELECTRONIC_NOISE_COUNTS,
) -> np.ndarray:
    """Scan objects on the grid of the image."""
    simulation = Simulation(hu.shape[-1], 1, electronic_noise=electronic_noise)
    return scan(hu, protocol, rngs, simulation)


@pytest.fixture
def water(exact) -> np.ndarray:
    """A disk of water in air, 60 mm in radius, (n, n) HU."""
    return (1000 * exact.disk(PAPER_1, N, 0, 0, 60.0) - 1000).astype(np.float32)


def centre_noise(hu: np.ndarray, protocol: Protocol) -> float:
    """Variance, HU^2, at the centre over independent scans of the same slice."""
    low = scanned(np.repeat(hu[None], 8, 0), protocol, streams(*range(8)), 0.0)
    middle = slice(N // 2 - 12, N // 2 + 12)
    return float(low[:, middle, middle].var(axis=0, ddof=1).mean())


def test_noise_variance_falls_as_one_over_the_photons(water: np.ndarray) -> None:
    protocol = replace(PAPER_1, views=200)
    weak, strong = (centre_noise(water, replace(protocol, photons=i)) for i in (1e5, 1.6e6))
    assert weak / strong == pytest.approx(16, rel=0.1)


def test_noise_variance_falls_as_one_over_the_views(water: np.ndarray) -> None:
    few, many = (centre_noise(water, replace(PAPER_1, views=v)) for v in (100, 400))
    assert few / many == pytest.approx(4, rel=0.15)


def ring_error(low: np.ndarray, views: int) -> float:
    """Share of a ring's energy at multiples of the number of views: 1 for streaks, low for noise.

    A small centred object under V views is unchanged by a turn of 360 / V degrees, so its streaks
    have only those frequencies around the centre; noise has all of them.
    """
    angle = np.arange(64 * views) * 2 * np.pi / (64 * views)
    middle, radius = (len(low) - 1) / 2, 0.35 * len(low)
    place = middle + radius * np.sin(angle), middle + radius * np.cos(angle)
    energy = np.abs(np.fft.rfft(map_coordinates(low, place, order=3)))[1:] ** 2
    return float(energy[views - 1 :: views].sum() / energy.sum())


def test_sparse_views_give_streaks_and_not_noise(exact) -> None:
    views, n = 20, 256
    sparse = replace(PAPER_1, views=views, photons=NO_NOISE)
    rod = (2000 * exact.disk(sparse, n, 0, 0, 3.0) - 1000).astype(np.float32)
    streaks = scanned(rod[None], sparse, streams(0))[0]
    full = scanned(rod[None], replace(sparse, views=480), streams(0))[0]
    noise = scanned(rod[None], replace(PAPER_1, views=480, photons=1e4), streams(0))[0]
    ring = inscribed_circle(n) & (rod == -1000)
    assert streaks[ring].std() > 10 * full[ring].std()
    assert ring_error(streaks, views) > 0.9
    assert ring_error(noise, views) < 0.2


def test_a_noiseless_scan_of_a_smooth_body_gives_the_body(exact) -> None:
    hu = (1060 * exact.gaussian(PAPER_1, N, 5.0, 10.0, 20.0) - 1000).astype(np.float32)
    low = scanned(hu[None], replace(PAPER_1, photons=NO_NOISE), streams(0))[0]
    assert np.abs(low - hu)[inscribed_circle(N)].max() < 10


@pytest.mark.parametrize("name", PRESETS)
def test_a_water_disk_reads_zero_hu_under_every_preset(exact, name: str) -> None:
    protocol = replace(PRESETS[name], photons=NO_NOISE)
    radius = 0.7 * protocol.field_radius_mm
    hu = (1000 * exact.disk(protocol, N, 0, 0, radius) - 1000).astype(np.float32)
    low = scanned(hu[None], protocol, streams(0))[0]
    x, y = exact.grid(protocol, N)
    assert low[np.hypot(x, y) < 0.8 * radius].mean() == pytest.approx(0, abs=5)


def test_outside_the_circle_the_object_and_the_image_are_air(water: np.ndarray) -> None:
    outside = ~inscribed_circle(N)
    with_corners = np.where(outside, np.float32(800), water)
    low = scanned(np.stack((water, with_corners)), PAPER_1, streams(5, 5))
    np.testing.assert_array_equal(low[0], low[1])
    np.testing.assert_array_equal(low[0][outside], -1000)


def test_a_slice_depends_on_its_own_stream_and_not_on_its_batch(water: np.ndarray) -> None:
    protocol = replace(PAPER_1, views=64)
    batch = scanned(np.stack((water, -water - 1000, water)), protocol, streams(1, 2, 3))
    alone = scanned(water[None], protocol, streams(3))[0]
    np.testing.assert_allclose(batch[2], alone, atol=0.02)
    assert np.abs(batch[0] - batch[2]).max() > 1


def test_many_scans_of_one_image_are_scans_of_copies_of_it(water: np.ndarray) -> None:
    protocol = PRESETS["paper-2"]
    once, copies = scanned(water[None], protocol, streams(1, 2)), np.stack([water, water])
    assert np.array_equal(once, scanned(copies, protocol, streams(1, 2)))


def test_one_stream_too_few_is_an_error(water: np.ndarray) -> None:
    with pytest.raises(ValueError, match="zip"):
        scanned(np.stack((water, water)), replace(PAPER_1, views=8), streams(1))


def test_more_electronic_noise_is_more_noise(water: np.ndarray) -> None:
    protocol = replace(PAPER_1, views=64)
    clean, noisy = (scanned(water[None], protocol, streams(1), e)[0] for e in (0.0, 3000.0))
    middle = slice(N // 2 - 12, N // 2 + 12)
    assert noisy[middle, middle].std() > 1.5 * clean[middle, middle].std()


def test_attenuation_of_water_has_one_home() -> None:
    assert MU_WATER_PER_MM == 0.0192


@pytest.mark.parametrize("name", ["paper-2", "paper-4"])
def test_a_smooth_phantoms_scan_does_not_depend_on_the_objects_grid(exact, name: str) -> None:
    protocol = replace(PRESETS[name], photons=NO_NOISE)
    images = []
    for finer in (1, 2, 4):
        width = 0.12 * protocol.field_radius_mm
        hu = 1060 * exact.gaussian(protocol, finer * N, 5.0, 10.0, width) - 1000
        images += list(
            scan(hu[None].astype(np.float32), protocol, streams(0), Simulation(N, finer))
        )
    assert np.abs(images[0] - images[2]).max() < 12
    assert np.abs(images[1] - images[2]).max() < 3


def test_a_bin_sees_the_mean_transmission_of_its_rays(exact) -> None:
    protocol, simulation = replace(PRESETS["paper-4"], views=16), Simulation(N, 16)
    size = simulation.object_size
    assert simulation.rays(protocol) == 3  # 0.81 mm at the centre, over pixels of 0.35 mm
    assert Simulation(N, 1).rays(protocol) == 1
    hu = (1500 * exact.disk(protocol, size, 20.0, 0, 40.0) - 1000).astype(np.float32)
    mu = torch.from_numpy(hu + 1000)[None, None] * np.float32(MU_WATER_PER_MM / 1000)
    rays = FanBeam(fine_detector(protocol, 3), size).project(mu.double())[0, 0].numpy()
    transmission = np.exp(-rays).reshape(16, protocol.bins, 3).mean(axis=-1)
    seen = expect(hu[None], protocol, simulation)[0]
    np.testing.assert_allclose(seen, -np.log(transmission), atol=1e-4)
    centres = FanBeam(protocol, size).project(mu)[0, 0].numpy()
    assert np.abs(seen - centres).max() > 0.02  # at the edges of the disk


def test_noise_beyond_what_the_grid_can_show_does_not_fold_back(water: np.ndarray) -> None:
    kernels = {pixels: Simulation(N, 1, pixels) for pixels in (None, 0.85, 0.2125)}
    rngs = {pixels: streams(*range(4)) for pixels in kernels}
    images = {
        pixels: scan(water[None], PAPER_1, rngs[pixels], simulation)
        for pixels, simulation in kernels.items()
    }
    np.testing.assert_array_equal(images[None], images[0.85])
    middle = slice(N // 2 - 12, N // 2 + 12)
    scanners_own = images[0.2125][:, middle, middle].std()  # as fine as on the 256 x 256 grid
    assert scanners_own > 2.5 * images[None][:, middle, middle].std()

"""The statistics of the detector."""

import numpy as np
import pytest

from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS, FLOOR_COUNTS, add_noise

RAYS = (400, 500)


def noise(p: float, photons: float, electronic: float = 0.0) -> np.ndarray:
    clean = np.full(RAYS, p, dtype=np.float32)
    return add_noise(clean, photons, np.random.default_rng(3), electronic) - p


@pytest.mark.parametrize("photons", [1e4, 1e5, 1e6])
@pytest.mark.parametrize("p", [0.0, 2.0])
def test_the_variance_is_one_over_the_expected_counts(photons: float, p: float) -> None:
    counts = photons * np.exp(-p)
    error = noise(p, photons)
    assert error.var() == pytest.approx(1 / counts, rel=0.02)
    assert abs(error.mean()) < 1 / counts + 4 / np.sqrt(counts * error.size)


def test_electronic_noise_adds_its_variance_to_the_counts() -> None:
    counts, electronic = 1e4, 200.0
    expected = (counts + electronic**2) / counts**2
    assert noise(0.0, counts, electronic).var() == pytest.approx(expected, rel=0.02)


def test_the_default_electronic_variance_is_ten_counts_squared() -> None:
    np.testing.assert_allclose(ELECTRONIC_NOISE_COUNTS**2, 10)


def test_a_ray_that_no_photon_survives_reads_the_floor() -> None:
    noisy = add_noise(np.full(RAYS, 60.0), 1e5, np.random.default_rng(0), electronic_noise=0.0)
    np.testing.assert_allclose(noisy, np.log(1e5 / FLOOR_COUNTS), rtol=1e-6)


def test_readings_are_finite_when_electronic_noise_outweighs_the_light() -> None:
    noisy = add_noise(np.full(RAYS, 30.0), 1e5, np.random.default_rng(0))
    assert np.isfinite(noisy).all()
    assert noisy.dtype == np.float32


def test_noise_depends_on_its_stream_alone() -> None:
    clean = np.linspace(0, 4, 1000)
    first, second, other = (
        add_noise(clean, 1e5, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).mean() > 0.9

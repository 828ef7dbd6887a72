"""HU, attenuation and the circle that every protocol sees."""

import numpy as np
import pytest

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, hu_to_mu, inscribed_circle, mu_to_hu


def test_air_water_and_twice_water() -> None:
    mu = hu_to_mu(np.array([-1000.0, 0.0, 1000.0]))
    np.testing.assert_allclose(mu, [0, 0.0192, 0.0384], rtol=1e-6, atol=1e-9)
    assert mu.dtype == np.float32


def test_attenuation_is_never_negative() -> None:
    np.testing.assert_array_equal(hu_to_mu(np.array([-3024.0, -1001.0])), [0, 0])


def test_hu_to_mu_and_back_is_exact_to_a_thousandth() -> None:
    hu = np.linspace(-1000, 3000, 4001, dtype=np.float32)
    np.testing.assert_allclose(mu_to_hu(hu_to_mu(hu)), hu, atol=1e-3)


def test_mu_to_hu_keeps_what_a_reconstruction_has_below_air() -> None:
    assert mu_to_hu(np.array([-0.1 * MU_WATER_PER_MM]))[0] == pytest.approx(-1100, abs=1e-3)


def test_inputs_are_left_alone() -> None:
    hu = np.array([-2000.0, 40.0], dtype=np.float32)
    mu_to_hu(hu_to_mu(hu))
    np.testing.assert_array_equal(hu, np.array([-2000.0, 40.0], dtype=np.float32))


@pytest.mark.parametrize("n", [5, 64])
def test_the_inscribed_circle_touches_the_edges_and_not_the_corners(n: int) -> None:
    circle = inscribed_circle(n)
    assert circle[n // 2, 0]
    assert circle[0, n // 2]
    assert not circle[0, 0]
    np.testing.assert_array_equal(circle, np.rot90(circle))
    assert circle.mean() == pytest.approx(np.pi / 4, abs=0.1)

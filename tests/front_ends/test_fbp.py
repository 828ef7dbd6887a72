"""The FBP as a front end: the scanner's kernel is the scan's own, a tuned one is chosen."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.front_ends.base import Measured
from physfed_ray.front_ends.fbp import kernel_widths, squared_error, with_kernel
from physfed_ray.front_ends.registry import make_front_end

NOISY = replace(PRESETS["paper-7"], views=96, photons=2e4)
SIMULATION = Simulation(48, object_scale=2)


@pytest.fixture(scope="module")
def slices() -> Measured:
    """Four noisy scans of one phantom."""
    n = SIMULATION.object_size
    blobs = gaussian_filter(np.random.default_rng(1).random((n, n)), 3, mode="wrap")
    inside = np.hypot(*(np.indices((n, n)) - (n - 1) / 2)) < 0.4 * n
    fine = np.where(inside, 4000 * (blobs - 0.5), -1000).astype(np.float32)
    full = fine.reshape(48, 2, 48, 2).mean((1, 3))
    rngs = [np.random.default_rng(k) for k in range(4)]
    measured = measure(expect(fine[None], NOISY, SIMULATION), NOISY, rngs, SIMULATION)
    return Measured(measured, np.repeat(full[None], 4, 0), NOISY, SIMULATION, (-1000, 2000))


def test_the_scanner_s_own_kernel_prepares_nothing() -> None:
    own = make_front_end()
    assert (own.prepares, own.chooses, own.fields, own.module) == (False, False, (), own.module)


def test_the_chosen_kernel_is_the_best_of_all(slices: Measured) -> None:
    tuned = make_front_end(kernel="tuned")
    assert tuned.prepares
    assert tuned.chooses
    choice = tuned.choose(slices)
    errors = {
        width: squared_error(with_kernel(slices.line_integrals, NOISY, SIMULATION, width), slices)
        for width in kernel_widths(NOISY, SIMULATION)
    }
    assert choice == {"kernel_pixels": min(errors, key=errors.__getitem__)}
    assert errors[choice["kernel_pixels"]] < errors[0.85] - 0.1  # it was worth choosing


def test_images_are_those_of_a_scan_with_that_kernel(slices: Measured) -> None:
    tuned = make_front_end(kernel="tuned")
    found = tuned.reconstruct(slices.line_integrals, NOISY, SIMULATION, {"kernel_pixels": 1.4})
    scan = replace(SIMULATION, kernel_pixels=1.4)
    np.testing.assert_array_equal(found, reconstruct(slices.line_integrals, NOISY, scan))

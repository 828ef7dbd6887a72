"""Neighbouring views as a front end: what it chooses, and what that is worth."""

from dataclasses import replace

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.front_end import FrontEndSpec
from physfed_ray.front_ends.base import Measured
from physfed_ray.front_ends.fbp import squared_error, tuned_kernel
from physfed_ray.front_ends.registry import make_front_end

SIMULATION = Simulation(64, object_scale=2)
MANY = replace(PRESETS["paper-7"], views=280, bins=189, bin_mm=5.2, photons=4e3)
FEW = replace(MANY, views=24, photons=1e6)
SETTINGS = {"views", "threshold", "sliding", "kernel_pixels"}


def measured(protocol: Protocol, seed: int, slices: int = 2) -> Measured:
    """Return scans of ellipses in an ellipse."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    objects = np.full((slices, 128, 128), -1000, np.float32)
    for hu in objects:
        hu[(x / 0.85) ** 2 + (y / 0.65) ** 2 < 1] = 0
        for contrast in (-700, -60, 40, 80, 300, 900):
            at_x, at_y = rng.uniform(-0.45, 0.45, 2)
            wide, high = rng.uniform(0.05, 0.2, 2)
            hu[((x - at_x) / wide) ** 2 + ((y - at_y) / high) ** 2 < 1] = contrast
    full = objects.reshape(slices, 64, 2, 64, 2).mean((2, 4))
    rngs = [np.random.default_rng(100 * seed + k) for k in range(slices)]
    rows = measure(expect(objects, protocol, SIMULATION), protocol, rngs, SIMULATION)
    return Measured(rows, full, protocol, SIMULATION, (-1000.0, 2000.0))


def error(slices: Measured, choose_on: Measured | None = None, **settings: object) -> float:
    """Return minus the PSNR, as a natural logarithm of the squared error, of a front end."""
    front_end = make_front_end("neighbour_views", **settings)
    choice = front_end.choose(choose_on or slices)
    hu = front_end.reconstruct(slices.line_integrals, slices.protocol, SIMULATION, choice)
    assert hu.dtype == np.float32
    return squared_error(hu, slices)


@pytest.fixture(scope="module")
def many() -> Measured:
    return measured(MANY, 1)


def test_it_gains_on_other_slices_where_views_are_many_and_noise_is_strong(many: Measured) -> None:
    other = measured(MANY, 2)
    scanner = squared_error(reconstruct(other.line_integrals, MANY, SIMULATION), other)
    width = tuned_kernel(many)[0]
    tuned = squared_error(
        reconstruct(other.line_integrals, MANY, replace(SIMULATION, kernel_pixels=width)), other
    )
    found = error(other, many)
    decibel = np.log(10) / 10
    assert found < scanner - 1 * decibel
    assert found < tuned - 0.3 * decibel
    assert error(other, many, kernel="scanner") < scanner - 0.3 * decibel


@pytest.mark.parametrize("relative_to", ["noise", "first"])
def test_its_choice_is_never_worse_than_the_tuned_kernel_on_its_slices(relative_to) -> None:
    for protocol in (MANY, FEW):
        slices = measured(protocol, 3)
        assert error(slices, relative_to=relative_to) <= tuned_kernel(slices)[1]


def test_it_leaves_few_views_alone() -> None:
    choice = make_front_end("neighbour_views").choose(measured(FEW, 1))
    assert choice.keys() == SETTINGS
    assert choice["threshold"] == 0


def test_all_views_as_one_group_of_rank_one_are_terrible(many: Measured) -> None:
    scanner = squared_error(reconstruct(many.line_integrals, MANY, SIMULATION), many)
    one = error(many, views=280, threshold=1e9, sliding=False, kernel="scanner")
    assert one > scanner + np.log(10)  # 10 dB


def test_what_is_given_needs_no_slices(many: Measured) -> None:
    given = {"views": 4, "threshold": 0, "sliding": False, "kernel": "scanner"}
    front_end = make_front_end("neighbour_views", **given)
    assert front_end.prepares
    assert not front_end.chooses
    none = replace(many, line_integrals=many.line_integrals[:0], full_hu=many.full_hu[:0])
    choice = front_end.choose(none)
    own = front_end.reconstruct(many.line_integrals, MANY, SIMULATION, choice)
    np.testing.assert_allclose(
        own, reconstruct(many.line_integrals, MANY, SIMULATION), rtol=1e-5, atol=0.01
    )


def test_what_is_given_is_not_chosen(many: Measured) -> None:
    given = {"views": 3, "threshold": 1.05, "sliding": True}
    choice = make_front_end("neighbour_views", **given).choose(many)
    assert {key: choice[key] for key in given} == {"views": 3, "threshold": 1.05, "sliding": 1}
    own = make_front_end("neighbour_views", kernel="scanner").choose(many)
    assert own["kernel_pixels"] == pytest.approx(0.85)


def test_groups_larger_than_a_scan_are_refused_but_not_chosen() -> None:
    slices = measured(replace(FEW, views=3), 1)
    with pytest.raises(PhysFedError, match="groups of 4 views cannot be made of a protocol's 3"):
        make_front_end("neighbour_views", views=4).choose(slices)
    assert make_front_end("neighbour_views").choose(slices)["views"] == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("views", 1), ("views", True), ("views", 2.5), ("threshold", -1), ("threshold", True),
     ("sliding", "sometimes"), ("kernel", "wide"), ("relative_to", "last"),
     ("threshold", float("nan")), ("threshold", float("inf"))],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(PhysFedError, match=f"front_end.{key}"):
        FrontEndSpec.model_validate({"name": "neighbour_views", key: value})

"""A line's weight is shared by its measurements, whatever the arc."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.ct.redundancy import ray_shares, share

PAPER_1 = PRESETS["paper-1"]

arcs = st.floats(1, 359.9)
views = st.integers(1, 2000)
angles = st.floats(0, 1, exclude_max=True)


def line(protocol: Protocol, view: float, ray: float) -> tuple[float, float, float]:
    """The unit normal of a ray's line and its distance from the centre, one of the two signs."""
    source = protocol.source_mm * np.array([math.sin(view), -math.cos(view)])
    way = np.array([-math.sin(view - ray), math.cos(view - ray)])
    normal = np.array([way[1], -way[0]])
    sign = 1 if tuple(normal.round(6)) > (0, 0) else -1
    return *(sign * normal), sign * float(source @ normal)


@given(arc=arcs, views=views, at=angles, ray=st.floats(-1.2, 1.2))
def test_the_shares_of_a_line_add_up_to_1(arc: float, views: int, at: float, ray: float) -> None:
    protocol = replace(PAPER_1, arc_deg=arc, views=views)
    step = protocol.arc / views
    view = (at - 0.5 / views) * protocol.arc  # within the arc, a view standing for its step
    other = (view + math.pi - 2 * ray + step / 2) % (2 * math.pi) - step / 2
    here, there = line(protocol, view, ray), line(protocol, other, -ray)
    assert min(np.abs(np.subtract(here, there)).max(), np.abs(np.add(here, there)).max()) < 1e-6
    own, conjugate = (
        share(protocol, *torch.tensor([[b], [g]], dtype=torch.float64)).item()
        for b, g in ((view, ray), (other, -ray))
    )
    measured_twice = other + step / 2 < protocol.arc
    if math.isfinite(own):  # both at the very ends, where rounding makes the taper 0
        assert 0 <= own <= 1
        assert own + (conjugate if measured_twice else 0) == pytest.approx(1)


@pytest.mark.parametrize("detector", ["flat", "arc"])
@pytest.mark.parametrize("arc", [20, 120, 180, 230, 359])
def test_every_ray_has_a_share(detector: str, arc: float) -> None:
    protocol = replace(PAPER_1, detector=detector, arc_deg=arc, views=300)
    found = ray_shares(protocol)
    assert found.shape == (300, 512)
    assert ((found > 0) & (found <= 1)).all()
    once = torch.isclose(found, torch.ones(()).double()).double().mean()
    assert once == 1 if arc < 180 - 2 * 21 else once < 1  # a fan of 41 degrees


def test_a_full_circle_measures_every_line_twice() -> None:
    assert ray_shares(PAPER_1).tolist() == [[0.5]]
    almost = ray_shares(replace(PAPER_1, arc_deg=359.999))
    torch.testing.assert_close(almost.mean(), torch.tensor(0.5).double(), rtol=0.01, atol=0)


def test_the_taper_is_the_squared_sine_of_noo_et_al() -> None:
    """On an arc of 200 degrees, central rays at 5, 15 and 1 come again at 185, 195 and 181.

    c is 1/2 at 5 of 10 degrees from either end, and 1 from 10 degrees on.
    """
    protocol = replace(PAPER_1, arc_deg=200, views=90_000)
    view = torch.tensor([5.0, 15.0, 1.0]).double().deg2rad()
    found = share(protocol, view, torch.zeros(3).double())
    first = math.sin(math.radians(9)) ** 2
    np.testing.assert_allclose(found, [1 / 3, 2 / 3, first / (first + 1)], rtol=5e-3)

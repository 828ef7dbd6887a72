"""Where tissues lie, in numbers that a mirror does not change."""

import numpy as np
import pytest
from scipy import ndimage

from physfed_ray.reports.layout import TISSUES, layout

N = 120


def laid_out(image: np.ndarray, body: np.ndarray, **tissues: np.ndarray) -> dict[str, float]:
    masks = {name: tissues.get(name, np.zeros_like(body)) for name in TISSUES}
    return layout(image, body, ndimage.distance_transform_edt(body), masks)


@pytest.fixture
def body() -> np.ndarray:
    """A square of 90 pixels: zones are 30 pixels deep and, each side, 15 wide."""
    mask = np.zeros((N, N), bool)
    mask[15:105, 15:105] = True
    return mask


def test_a_tissue_is_found_in_its_zone_alone(body):
    image = np.where(body, 40.0, -1000.0)
    lung = np.zeros_like(body)
    lung[15:45, 15:30] = True  # in front, one side's outermost zone
    found = laid_out(np.where(lung, -850.0, image), body, lung=lung)
    zones = {name: value for name, value in found.items() if name.startswith("lung ") and value}
    assert zones.pop("lung 02") == pytest.approx(0.5)  # of both sides
    assert zones.pop("lung hu") == pytest.approx(-0.85)
    assert zones.pop("lung aside") == pytest.approx(5 / 6, abs=0.01)
    assert set(zones) == {"lung depth"}


def test_a_mirror_changes_nothing(body):
    rng = np.random.default_rng(1)
    image = ndimage.gaussian_filter(rng.normal(0, 4000, (N, N)), 3)
    parts = {"bone": body & (image > 300), "lung": body & (image < -500), "gas": body & False}
    body = body & (image > -900)
    here = laid_out(image, body, **parts)
    mirrored = {name: mask[:, ::-1] for name, mask in parts.items()}
    there = laid_out(image[:, ::-1], body[:, ::-1], **mirrored)
    assert here == pytest.approx(there, abs=1e-5)


def test_a_frame_that_cuts_the_body_is_seen(body):
    image = np.where(body, 40.0, -1000.0)
    y, x = np.mgrid[:N, :N]
    disc = np.hypot(x - 60, y - 60) < 45
    cut = laid_out(image, body)
    whole = laid_out(np.where(disc, 40.0, -1000.0), disc)
    half = laid_out(np.where(disc & (x < 60), 40.0, -1000.0), disc & (x < 60))
    sides = ("cut aside", "cut front", "cut behind")
    assert all(cut[name] == 1 for name in sides)
    assert all(whole[name] < 0.3 for name in sides)
    assert half["cut aside"] > 0.9
    assert half["cut other side"] < 0.3


def test_a_ring_of_bone_is_one_round_piece_and_ribs_are_many(body):
    y, x = np.mgrid[:N, :N]
    far = np.hypot(x - 60, y - 60)
    image = np.where(body, 40.0, -1000.0)
    shaft = laid_out(image, body, bone=(far < 14) & (far > 8))
    assert (shaft["many bones"], shaft["second bone"]) == (1, 0)
    assert shaft["bone narrow"] == 1
    ribs = np.zeros_like(body)
    ribs[20:100:20, 20:26] = ribs[20:100:20, 95:101] = True
    ribs = ndimage.binary_dilation(ribs, iterations=2)
    found = laid_out(image, body, bone=ribs)
    assert found["many bones"] == 8
    assert found["second bone"] == 1


def test_without_bone_there_is_still_every_number(body):
    image = np.where(body, 40.0, -1000.0)
    assert list(laid_out(image, body)) == list(laid_out(image, body, bone=body))
    assert all(np.isfinite(value) for value in laid_out(image, body).values())

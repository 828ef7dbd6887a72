"""Phantoms: deterministic, random between patients, consistent within one, plausible in HU."""

import numpy as np
import pytest

from physfed_ray.data.anatomy import REGIONS
from physfed_ray.data.anatomy.canvas import SmoothField, Space
from physfed_ray.data.anatomy.shapes import capsule, ellipse, ellipsoid, squarish
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.errors import PhysFedError

SLICES = 6


@pytest.fixture(scope="module")
def volumes() -> dict[str, np.ndarray]:
    """Two patients of each region: region -> (2, slices, 128, 128)."""
    source = PhantomSource(2 * len(REGIONS), SLICES, 11, 128)
    found: dict[str, list[np.ndarray]] = {}
    for number, patient in enumerate(source.ids()):
        name = list(REGIONS)[number % len(REGIONS)]
        found.setdefault(name, []).append(np.stack(source.load(patient, None).slices))
    return {name: np.stack(pair) for name, pair in found.items()}


def share(volume: np.ndarray, low: float, high: float) -> float:
    """Return the part of the body between two HU values."""
    body = volume > -300
    return float(((volume > low) & (volume < high)).sum() / body.sum())


def test_the_source_keeps_its_contract():
    source = PhantomSource(7, 9, 1, 64)
    ids = source.ids()
    assert ids[0] == "phantom-00"
    assert len(set(ids)) == 7
    volume = source.load(ids[2], 4)
    assert volume.id == ids[2]
    assert len(volume.slices) == len(volume.spacings_mm) == len(volume.positions_mm) == 4
    assert all(image.shape == (64, 64) and image.dtype == np.float32 for image in volume.slices)
    assert list(volume.positions_mm) == sorted(volume.positions_mm)
    assert source.slice_count(ids[0]) == 9
    assert len(source.load(ids[0], None).slices) == 9
    assert len(source.load(ids[0], 100).slices) == 9
    summary = source.summary()
    assert summary["regions"] == {
        "chest": 2, "abdomen": 2, "pelvis": 1, "head": 1, "extremity": 1
    }  # fmt: skip
    assert summary["slices"] == 63


def test_same_seed_same_patient_whatever_is_around_it():
    one = PhantomSource(3, 5, 4, 64).load("phantom-01", None)
    # More patients, another order of loading, fewer slices at a time: nothing may change.
    other = PhantomSource(30, 5, 4, 64)
    other.load("phantom-07", 1)
    again = other.load("phantom-01", None)
    for a, b in zip(one.slices, again.slices, strict=True):
        assert np.array_equal(a, b)
    middle = other.load("phantom-01", 1)
    place = one.positions_mm.index(middle.positions_mm[0])
    assert np.array_equal(middle.slices[0], one.slices[place])


def test_seed_patient_and_slice_make_a_difference():
    base = PhantomSource(6, 2, 4, 64)
    first = base.load("phantom-00", None).slices
    for other in (
        PhantomSource(6, 2, 5, 64).load("phantom-00", None).slices[0],
        base.load("phantom-05", None).slices[0],
        first[1],
    ):
        assert np.abs(first[0] - other).mean() > 10


def test_fingerprints_follow_what_matters():
    prints = {
        PhantomSource(4, 3, 1, 64).fingerprint("phantom-00"),
        PhantomSource(4, 3, 1, 64).fingerprint("phantom-01"),
        PhantomSource(4, 3, 2, 64).fingerprint("phantom-00"),
        PhantomSource(4, 4, 1, 64).fingerprint("phantom-00"),
        PhantomSource(4, 3, 1, 96).fingerprint("phantom-00"),
    }
    assert len(prints) == 5
    # The number of other patients does not change this one: a larger collection reuses its cache.
    assert PhantomSource(9, 3, 1, 64).fingerprint("phantom-00") in prints


@pytest.mark.parametrize("name", list(REGIONS))
def test_every_region_is_plausible_ct(volumes, name):
    volume = volumes[name]
    assert np.isfinite(volume).all()
    assert volume.min() >= -1050
    assert 500 < volume.max() < 2500
    assert np.median(volume[:, :, :6, :6]) == pytest.approx(-1000, abs=10)
    for patient in volume:
        for image in patient:
            body = (image > -300).mean()
            assert 0.1 < body < 0.85
        assert share(patient, -20, 90) > 0.15
        assert share(patient, 300, 3000) > 0.005


def test_tissues_have_their_values(volumes):
    def mode(volume: np.ndarray, low: float, high: float) -> float:
        counts, edges = np.histogram(volume, 60, (low, high))
        best = int(counts.argmax())
        return float(edges[best] + edges[best + 1]) / 2

    assert mode(volumes["abdomen"], -180, -40) == pytest.approx(-103, abs=12)
    assert mode(volumes["extremity"], 0, 100) == pytest.approx(54, abs=10)
    assert mode(volumes["chest"], -950, -700) == pytest.approx(-855, abs=50)
    assert mode(volumes["head"], 0, 100) == pytest.approx(33, abs=8)


def test_regions_hold_what_makes_them(volumes):
    assert share(volumes["chest"], -950, -700) > 0.15
    assert share(volumes["extremity"], -950, -700) < 0.1  # partial volume at the skin
    assert share(volumes["head"], 300, 3000) > 0.1
    assert share(volumes["head"], 300, 3000) > 2 * share(volumes["abdomen"], 300, 3000)


def test_anatomy_changes_smoothly_along_a_patient():
    source = PhantomSource(len(REGIONS), 60, 2, 64)
    dense = {patient: np.stack(source.load(patient, None).slices) for patient in source.ids()}
    for volume in dense.values():
        bodies = volume > -300
        size = bodies.sum((1, 2))
        near = (bodies[1:] ^ bodies[:-1]).sum((1, 2)) / size[1:]
        far = (bodies[20:] ^ bodies[:-20]).sum((1, 2)) / size[20:]
        assert np.median(near) < 0.05
        assert np.median(near) < 0.5 * np.median(far) + 0.01


def test_users_mistakes_are_named():
    with pytest.raises(PhysFedError, match="at least 1 patients, not 0"):
        PhantomSource(0, 3, 1)
    with pytest.raises(PhysFedError, match="at least 32 size"):
        PhantomSource(1, 3, 1, 8)
    with pytest.raises(PhysFedError, match="no phantom `phantom-09`"):
        PhantomSource(2, 3, 1).load("phantom-09", None)


def grid(half: float = 60, n: int = 241) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-half, half, n, dtype=np.float32)
    return axis[None] * np.ones((n, 1), np.float32), axis[:, None] * np.ones((1, n), np.float32)


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (ellipse(5, -8, 30, 18, 0.7), np.pi * 30 * 18),
        (capsule((-20, 0), (20, 10), 8), np.pi * 64 + 16 * np.hypot(40, 10)),
        (ellipsoid(12, (0, 0, 0), (40, 30, 20)), np.pi * 40 * 30 * (1 - 0.36)),
        (ellipse(0, 0, 30, 30) - ellipse(0, 0, 20, 20), np.pi * 500),
        (ellipse(-20, 0, 10, 10) | ellipse(20, 0, 10, 10), np.pi * 200),
        (ellipse(0, 0, 20, 20).grow(5), np.pi * 625),
    ],
)
def test_shapes_have_their_area_and_stay_in_their_box(shape, area):
    x, y = grid()
    inside = shape.distance(x, y) < 0
    assert inside.sum() * 0.25 == pytest.approx(area, rel=0.02)
    x0, y0, x1, y1 = shape.box
    assert (x[inside] >= x0 - 0.3).all()
    assert (x[inside] <= x1 + 0.3).all()
    assert (y[inside] >= y0 - 0.3).all()
    assert (y[inside] <= y1 + 0.3).all()


@pytest.mark.parametrize("shape", [ellipse(0, 0, 40, 25, 0.3), squarish(0, 0, 45, 30)])
def test_distance_is_in_mm_near_the_border(shape):
    x, y = grid()
    d = shape.distance(x, y)
    slope = np.hypot(*np.gradient(d, 0.5))
    near = np.abs(d) < 2
    assert slope[near].mean() == pytest.approx(1, abs=0.06)
    assert slope[near].min() > 0.7


def test_fields_are_smooth_and_of_unit_variance():
    field = SmoothField(np.random.default_rng(0), 400, 200, 12)
    sections = np.stack([field.at(z, 128) for z in np.arange(0, 200, 10)])
    assert sections.std() == pytest.approx(1, abs=0.1)
    assert np.abs(field.at(50, 128) - field.at(50.5, 128)).max() < 0.35


def test_spaces_differ_between_patients():
    one, other = (Space.draw(np.random.default_rng(s), 400, 200) for s in (0, 1))
    assert np.abs(one.blotch.at(0, 32) - other.blotch.at(0, 32)).mean() > 0.3


def test_painting_stays_in_single_precision():
    """A NumPy scalar in a shape would silently make everything twice as slow."""
    x, y = grid()
    two = np.float64(2.0)
    shapes = (
        ellipse(two, two, 10 * two, 5 * two, 0.2),
        squarish(two, two, 10 * two, 5 * two),
        capsule((two, two), (9 * two, two), two),
        ellipse(0, 0, 9, 9).grow(two),
    )
    for shape in shapes:
        assert shape.distance(x, y).dtype == np.float32

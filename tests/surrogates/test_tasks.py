"""Labels: regions that training and test share, and lesions that lie where they should."""

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.surrogates.file import Lesion
from physfed_ray.surrogates.images import Slices
from physfed_ray.surrogates.tasks import disc, plant_lesions, region_labels


def slices(regions: str = "aabbc?", radius: float = 20) -> Slices:
    count, size = len(regions), 64
    y, x = np.mgrid[:size, :size] - 31.5
    body = np.broadcast_to(np.hypot(x, y) < radius, (count, size, size))
    hu = np.where(body, 40.0, -1000.0).astype(np.float32)
    named = tuple("" if r == "?" else r for r in regions)
    return Slices(hu, body, np.full(count, 5.0), tuple(range(count)), named)


def test_regions_count_where_both_sides_show_them() -> None:
    labels, names = region_labels(slices("aabbc?"), train=[0, 2, 4], test=[1, 3, 5])
    assert names == ("a", "b")
    assert labels.tolist() == [0, 0, 1, 1, -1, -1]


def test_one_region_is_no_task() -> None:
    with pytest.raises(PhysFedError, match="needs two regions"):
        region_labels(slices("aaaabb"), train=[0, 1, 4], test=[2, 3])


def test_lesions_lie_in_half_of_the_bodies_and_nowhere_else() -> None:
    before = slices("a" * 10)
    lesion = Lesion(radius_mm=15, contrast_hu=100)
    hu, labels = plant_lesions(before, lesion, seed=1)
    assert sorted(labels.tolist()) == [0] * 5 + [1] * 5
    added = hu - before.hu
    assert np.all(added[~before.body] == 0)
    assert (np.abs(added).max(axis=(1, 2)) > 0).tolist() == (labels == 1).tolist()
    area_mm2 = added[labels == 1].sum(axis=(1, 2)) / 100 * 5**2
    np.testing.assert_allclose(area_mm2, np.pi * 15**2, rtol=0.03)
    again, _ = plant_lesions(before, lesion, seed=1)
    assert np.array_equal(hu, again)
    other, _ = plant_lesions(before, lesion, seed=2)
    assert not np.array_equal(hu, other)


def test_a_body_too_small_for_a_lesion_has_no_label() -> None:
    _, labels = plant_lesions(slices("aa", radius=3), Lesion(radius_mm=20), seed=1)
    assert labels.tolist() == [-1, -1]


def test_a_disc_covers_its_area() -> None:
    covered = disc(64, np.array([30, 20]), radius_mm=12, pixel_mm=2)
    assert covered.sum() == pytest.approx(np.pi * 6**2, rel=0.02)
    assert covered[30, 20] == 1
    assert covered[30, 28] == 0

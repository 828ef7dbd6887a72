"""Which slices of the last evaluation are kept: few in all, from every client, in whole HU."""

import numpy as np
import pytest

from physfed_ray.federation.examples import SHOWN, kept, slices_each, spread


@pytest.mark.parametrize(
    ("clients", "unseen", "each"), [(1, 0, 24), (2, 1, 11), (8, 4, 2), (8, 100, 2), (32, 0, 1)]
)
def test_all_clients_together_fill_the_viewer(clients: int, unseen: int, each: int) -> None:
    assert slices_each(clients, unseen) == each
    assert clients > SHOWN or clients * each + min(unseen, SHOWN // 3) <= SHOWN


def test_slices_are_spread_evenly() -> None:
    assert spread(9, 1) == (4,)
    assert spread(9, 3) == (1, 4, 7)
    assert spread(3, 24) == (0, 1, 2)
    assert spread(100, 4) == (12, 37, 62, 87)
    assert spread(0, 4) == ()


def test_the_middle_slice_stays_as_it_is_and_others_are_whole_hu() -> None:
    images = np.linspace(0, 1, 8 * 9, dtype=np.float32).reshape(8, 3, 3)
    found = kept({"low": images}, 2, (-1000.0, 2000.0))
    assert found.keys() == {"low", "low_slices"}
    assert np.array_equal(found["low"], images[4])
    assert found["low_slices"].dtype == np.int16
    assert np.abs(found["low_slices"] - (images[[2, 6]] * 3000.0 - 1000.0)).max() <= 0.5001
    assert kept({"low": images}, 1, (-1000.0, 2000.0)).keys() == {"low"}

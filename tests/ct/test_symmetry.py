"""Views that are turned copies of the first ones."""

from dataclasses import replace

import pytest
import torch

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.symmetry import Turns


@pytest.mark.parametrize(("views", "turns"), [(12, 4), (10, 2), (7, 1), (1, 1)])
def test_how_many_turns_map_a_scan_onto_itself(small: Protocol, views: int, turns: int) -> None:
    found = Turns(replace(small, views=views))
    assert (found.turns, found.base_views) == (turns, views // turns)


def test_a_shorter_arc_has_no_turns(small: Protocol) -> None:
    found = Turns(replace(small, views=12, arc_deg=180))
    assert (found.turns, found.base_views) == (1, 12)


def test_rows_hold_each_view_beside_its_turned_copies(small: Protocol) -> None:
    turns = Turns(small)
    sinogram = torch.arange(2.0 * small.views * small.bins).view(2, small.views, small.bins)
    rows = turns.to_rows(sinogram)
    assert rows.shape == (turns.base_views * small.bins, 2 * turns.turns)
    for turn in range(turns.turns):
        view = turn * turns.base_views
        assert rows[5, 2 * turn : 2 * turn + 2].tolist() == sinogram[:, view, 5].tolist()
    assert torch.equal(turns.from_rows(rows), sinogram)


def test_planes_are_turned_back_and_added(small: Protocol) -> None:
    turns = Turns(small)
    image = torch.randn(2, 9, 9, generator=torch.manual_seed(0))
    planes = turns.to_planes(image)
    torch.testing.assert_close(turns.from_planes(planes), turns.turns * image)
    other = torch.randn(planes.shape, generator=torch.manual_seed(1))
    forward, back = (planes * other).sum(), (image * turns.from_planes(other)).sum()
    torch.testing.assert_close(forward, back)

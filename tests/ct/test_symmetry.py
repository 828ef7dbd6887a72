"""Views that are turned copies of the first ones."""

from dataclasses import replace

import pytest
import torch

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.symmetry import Mirrors, Turns


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


@pytest.mark.parametrize(("kind", "sides"), [(Turns, 1), (Mirrors, 2)])
def test_planes_are_turned_back_and_added(small: Protocol, kind: type[Turns], sides: int) -> None:
    turns = kind(small)
    image = torch.randn(2, 9, 9, generator=torch.manual_seed(0))
    planes = turns.to_planes(image)
    torch.testing.assert_close(turns.from_planes(planes), sides * turns.turns * image)
    other = torch.randn(planes.shape, generator=torch.manual_seed(1))
    forward, back = (planes * other).sum(), (image * turns.from_planes(other)).sum()
    torch.testing.assert_close(forward, back)


@pytest.mark.parametrize("views", [1, 2, 3, 4, 8, 12, 20])
def test_mirrors_serve_every_view_once(small: Protocol, views: int) -> None:
    mirrors = Mirrors(replace(small, views=views))
    sinogram = torch.randn(2, views, small.bins, generator=torch.manual_seed(0))
    rows = mirrors.to_rows(sinogram)
    assert len(rows) == mirrors.own_views * small.bins
    assert mirrors.own_views == mirrors.base_views // 2 + 1
    assert torch.equal(mirrors.from_rows(rows), sinogram)
    assert rows.count_nonzero() == sinogram.count_nonzero()


def test_a_mirrored_view_is_at_the_opposite_angle_with_its_bins_reversed(small: Protocol) -> None:
    mirrors = Mirrors(replace(small, views=12))  # three base views, of which two are own
    sinogram = torch.randn(1, 12, small.bins, generator=torch.manual_seed(0))
    rows = mirrors.to_rows(sinogram).view(2, small.bins, 2, 4)
    for turn in range(4):
        assert torch.equal(rows[1, :, 0, turn], sinogram[0, 1 + 3 * turn])
        assert torch.equal(rows[1, :, 1, turn], sinogram[0, -1 - 3 * turn].flip(0))

"""Dealing clients to hosts."""

import pytest

from physfed_ray.federation.spec import assign


@pytest.mark.parametrize("hosts", [1, 2, 3, 7, 20])
def test_every_client_has_one_host_and_no_host_is_idle(hosts: int) -> None:
    slices = [(i * 37) % 11 + 1 for i in range(20)]
    ranges = assign(slices, hosts)
    assert [c for r in ranges for c in r] == list(range(20))
    assert all(len(r) for r in ranges)
    assert len(ranges) == hosts


def test_equal_clients_are_dealt_equally() -> None:
    assert assign([5] * 64, 2) == [range(32), range(32, 64)]


def test_a_heavy_client_gets_its_own_host() -> None:
    assert assign([1, 1, 1, 30], 2) == [range(3), range(3, 4)]

"""Every client has one host, nodes carry their share, and few subtrees are cut between nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.federation.spec import assign
from physfed_ray.federation.tree import TreeSum


def pieces_of(clients: range) -> int:
    """Return how many vectors a node sends that owns these clients."""
    tree = TreeSum()
    for client in clients:
        tree.add(client, None)
    return len(tree.pieces())


@pytest.mark.parametrize("groups", [(1,), (2,), (7,), (20,), (3, 3), (1, 5, 2), (4, 4, 4, 8)])
def test_every_client_has_one_host_and_no_host_is_idle(groups: tuple[int, ...]) -> None:
    slices = [5, 1, 9, 0, 3, 3, 3, 30, 2, 2, 8, 1, 1, 1, 4, 4, 7, 2, 6, 5]
    nodes = assign(slices, groups)
    assert [len(node) for node in nodes] == list(groups)
    assert all(len(host) for node in nodes for host in node)
    assert [c for node in nodes for host in node for c in host] == list(range(20))


def test_equal_clients_are_dealt_equally() -> None:
    assert [len(r) for r in assign([4] * 8, (4,))[0]] == [2, 2, 2, 2]
    assert [sum(map(len, node)) for node in assign([4] * 8, (2, 2))] == [4, 4]


def test_a_heavy_client_gets_its_own_host() -> None:
    assert [list(r) for r in assign([10, 1, 1, 1, 1], (2,))[0]] == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize("nodes", [2, 3, 5, 6, 8])
def test_nodes_carry_their_share_and_send_few_pieces(nodes: int) -> None:
    dealt = [range(node[0].start, node[-1].stop) for node in assign([7] * 512, (4,) * nodes)]
    share = 512 / nodes
    assert all(abs(len(clients) - share) <= share / 8 + 1 for clients in dealt)
    assert max(pieces_of(clients) for clients in dealt) <= 5
    if nodes in (2, 8):
        assert all(pieces_of(clients) == 1 for clients in dealt)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60), st.data())
def test_any_dealing_is_whole_contiguous_and_as_even_as_ranges_can_be(
    slices: list[int], data: st.DataObject
) -> None:
    hosts = data.draw(st.integers(1, len(slices)))
    cuts = sorted(data.draw(st.sets(st.integers(1, hosts), max_size=4)) | {hosts})
    groups = [end - start for start, end in zip([0, *cuts], cuts, strict=False)]
    nodes = assign(slices, groups)
    assert [len(node) for node in nodes] == groups
    assert all(len(host) for node in nodes for host in node)
    assert [c for node in nodes for host in node for c in host] == list(range(len(slices)))
    loads = [max(1, count) for count in slices]
    for node in nodes:
        own = loads[node[0].start : node[-1].stop]
        largest = max(sum(loads[c] for c in host) for host in node)
        assert largest == smallest_limit(own, len(node))


def smallest_limit(loads: list[int], hosts: int) -> int:
    """Return the smallest load that contiguous ranges on so many hosts can keep to, by trying."""
    best = [0] + [10**9] * len(loads)  # of the first so many clients, on the hosts so far
    for _ in range(hosts):
        best = [0] + [
            min(max(best[start], sum(loads[start:stop])) for start in range(stop))
            for stop in range(1, len(loads) + 1)
        ]
    return best[-1]

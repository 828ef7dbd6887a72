"""The aggregation tree: exact values, and bits that no packing can change."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.federation.tree import TreeSum


def reference(vectors: list[torch.Tensor | None]) -> torch.Tensor | None:
    """Pairwise sums, level by level: slow and clear."""
    level = list(vectors)
    while len(level) > 1:
        if len(level) % 2:
            level.append(None)
        level = [
            b if a is None else a if b is None else a + b
            for a, b in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


def split_sum(vectors: list[torch.Tensor | None], cuts: list[int]) -> torch.Tensor | None:
    """Sum on several hosts that own ranges, then on the server."""
    server = TreeSum()
    scratch = torch.empty(1000)
    for start, stop in reversed(list(zip([0, *cuts], [*cuts, len(vectors)], strict=True))):
        host = TreeSum()
        for client in range(start, stop):
            vector = vectors[client]
            buffer = host.add(client, None if vector is None else scratch.copy_(vector))
            scratch = scratch if buffer is None else buffer
            scratch.fill_(-1e9)
        server.absorb(host.pieces())
    return server.total(len(vectors))


def test_three_clients_by_hand() -> None:
    tree = TreeSum()
    for client, value in enumerate([1.0, 2.0, 4.0]):
        tree.add(client, torch.tensor([value]))
    total = tree.total(3)
    assert total is not None
    assert total.item() == 7.0


@pytest.mark.parametrize("clients", [1, 2, 3, 5, 8, 13, 16])
@pytest.mark.parametrize("absent", [(), (0,), (1, 2), (4,)])
def test_every_packing_gives_the_same_bits(clients: int, absent: tuple[int, ...]) -> None:
    torch.manual_seed(clients)
    vectors: list[torch.Tensor | None] = [
        None if i in absent else torch.randn(1000) * 10.0 ** (i % 5) for i in range(clients)
    ]
    expected = reference(vectors)
    for cuts in ([], [clients // 2], [1, clients - 1], list(range(1, clients))):
        cuts = sorted({c for c in cuts if 0 < c < clients})
        total = split_sum(vectors, cuts)
        if expected is None:
            assert total is None
        else:
            assert total is not None
            assert torch.equal(total, expected)


def test_pieces_are_never_written() -> None:
    host = TreeSum()
    host.add(0, torch.ones(3))
    piece = host.pieces()[0, 0]
    server = TreeSum()
    server.absorb({(0, 0): piece})
    server.add(1, torch.ones(3))
    assert torch.equal(server.total(2), torch.full((3,), 2.0))  # type: ignore[arg-type]
    assert torch.equal(piece, torch.ones(3))  # type: ignore[arg-type]


def test_a_sum_may_be_overwritten_unless_it_is_the_one_piece_that_came() -> None:
    piece = torch.ones(3)
    alone = TreeSum()
    alone.absorb({(0, 0): piece})
    assert alone.total(1) is piece
    assert not alone.is_mine
    both = TreeSum()
    both.absorb({(0, 0): piece, (0, 1): torch.ones(3)})
    both.total(2)
    assert both.is_mine


def test_a_forgotten_client_is_an_error() -> None:
    tree = TreeSum()
    tree.add(0, torch.ones(1))
    with pytest.raises(ValueError, match="incomplete"):
        tree.total(2)


@given(st.data())
def test_any_packing_of_any_participants_gives_the_bits_of_the_slow_sum(
    data: st.DataObject,
) -> None:
    present = data.draw(st.lists(st.booleans(), min_size=1, max_size=24))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(present) - 1)))) - {len(present)})
    torch.manual_seed(data.draw(st.integers(0, 99)))
    vectors = [torch.randn(1000) * 10.0 ** (i % 7) if there else None
               for i, there in enumerate(present)]  # fmt: skip
    expected, total = reference(vectors), split_sum(vectors, cuts)
    assert (total is None) == (expected is None)
    assert total is None or expected is None or torch.equal(total, expected)

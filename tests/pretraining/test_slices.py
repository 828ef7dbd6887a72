"""Slices under several protocols: examples by number, batches by (seed, step)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.store import ClientData
from physfed_ray.pretraining.slices import AT_ONCE, Scanned, Slices


def part(name: str, count: int, first: int) -> Scanned:
    """Return slices whose pixels are their numbers, from the first; low dose is one more."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    images = np.broadcast_to(numbers[:, None, None], (count, 4, 4))
    protocol = PRESETS[name]
    data = ClientData(
        low=images + 1,
        full=images,
        body=np.ones((count, 4, 4), np.uint8),
        embedding=np.zeros((count, 1, 3), np.float32),
        embedding_mask=np.ones((count, 1), np.uint8),
        g=np.tile(protocol.normalised(), (count, 1)).astype(np.float32),
        patient=[f"p{k}" for k in range(count)],
        slice=np.arange(count, dtype=np.int32),
        scale=np.ones(count, np.float32),
        report=[f"report {k}" for k in range(count)],
    )
    return Scanned(protocol, data, ("chest",) * count)


@pytest.fixture
def slices() -> Slices:
    """Return 3 slices under one protocol and 20 under another."""
    return Slices(
        (part("paper-1", 3, 0), part("paper-8", 20, 3)), scanned=True, window_hu=(-900.0, 900.0)
    )


def test_examples_are_those_of_their_numbers(slices: Slices) -> None:
    found = slices.examples([22, 0, 3])
    assert found.batch.full[:, 0, 0, 0].tolist() == [22, 0, 3]
    assert found.batch.low[:, 0, 0, 0].tolist() == [23, 1, 4]
    assert found.protocols == (PRESETS["paper-8"], PRESETS["paper-1"], PRESETS["paper-8"])
    assert found.patients == ("p19", "p0", "p0")
    assert found.reports == ("report 19", "report 0", "report 0")
    assert found.batch.embedding_mask.dtype == torch.bool
    assert found.window_hu == (-900, 900)
    plain = replace(slices, scanned=False).examples([22])
    assert torch.equal(plain.batch.low, plain.batch.full)


def test_all_come_once_and_in_order(slices: Slices) -> None:
    parts = slices.all()
    assert [len(p) for p in parts] == [AT_ONCE, 23 - AT_ONCE]
    assert torch.cat([p.batch.full[:, 0, 0, 0] for p in parts]).tolist() == list(range(23))
    assert len(parts[1:]) == 1


def test_a_batch_follows_from_seed_and_step(slices: Slices) -> None:
    drawn = slices.draw(1, 5, 8)
    assert np.array_equal(drawn, slices.draw(1, 5, 8))
    assert len({*drawn.tolist()}) == 8
    assert not np.array_equal(drawn, slices.draw(1, 6, 8))
    assert not np.array_equal(drawn, slices.draw(2, 5, 8))
    assert sorted(slices.draw(1, 0, 100).tolist()) == list(range(23))

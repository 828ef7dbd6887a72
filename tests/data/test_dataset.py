"""Patches come from where they say, contain the body, and use every slice equally often."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from physfed_ray.data.dataset import training_batches, whole_batch, whole_batches
from physfed_ray.data.store import ClientData
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Training
from physfed_ray.fields import Batch

SIZE = 24


def make_data(slices: int = 7, body: np.ndarray | None = None) -> ClientData:
    """Return slices whose every pixel has its own value, so that a patch tells where it is from."""
    low = np.arange(slices * SIZE * SIZE, dtype=np.float32).reshape(slices, SIZE, SIZE)
    if body is None:
        body = np.zeros_like(low, np.uint8)
        body[:, 4:15, 9:22] = 1
    low.flags.writeable = False
    return ClientData(
        low=low,
        full=-low,
        body=body,
        embedding=np.tile(np.arange(slices, dtype=np.float32)[:, None, None], (1, 2, 3)),
        embedding_mask=np.tile(np.array([1, 0], np.uint8), (slices, 1)),
        g=np.arange(slices, dtype=np.float32)[:, None] + np.linspace(0, 1, 7, dtype=np.float32),
        patient=["0"] * slices,
        slice=np.arange(slices, dtype=np.int32),
        scale=np.ones(slices, np.float32),
        report=[""] * slices,
    )


def run(data: ClientData, seed: int = 0, **changes: int | None) -> list[Batch]:
    settings = {"batch_size": 4, "patch": 5, "patches_per_slice": 3, "epochs": 2} | changes
    return list(training_batches(data, rng=np.random.default_rng(seed), **settings))


def slices_of(batch: Batch) -> list[int]:
    return [int(i) for i in batch.embedding[:, 0, 0]]


@pytest.mark.parametrize("patch", [1, 5, 8, SIZE, None])
def test_patches_come_from_where_their_origin_says(patch: int | None) -> None:
    data = make_data()
    size = patch or SIZE
    for batch in run(data, patch=patch):
        for b, i in enumerate(slices_of(batch)):
            row, column = batch.origin[b].tolist()
            place = (i, slice(row, row + size), slice(column, column + size))
            np.testing.assert_array_equal(batch.low[b, 0], data.low[place])
            np.testing.assert_array_equal(batch.full[b, 0], data.full[place])
            assert data.body[place].any()


def test_batches_are_what_a_network_expects() -> None:
    data = make_data()
    batch = run(data)[0]
    assert batch.low.shape == batch.full.shape == (4, 1, 5, 5)
    for tensor in (batch.low, batch.full, batch.embedding, batch.g):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
    assert batch.origin.dtype == torch.int64
    assert batch.embedding_mask.dtype == torch.bool
    assert batch.embedding_mask.tolist() == [[True, False]] * 4
    assert batch.image_size == SIZE
    np.testing.assert_array_equal(batch.g, data.g[slices_of(batch)])
    assert torch.equal(batch.own_g, batch.g[:1])
    batch.low.zero_()
    assert data.low[0, 0, 1] == 1


@pytest.mark.parametrize("patch", [5, None])
@pytest.mark.parametrize(("slices", "batch_size", "uses"), [(7, 4, 3), (1, 4, 1), (8, 4, 1)])
def test_every_slice_is_used_equally_often_in_each_epoch(
    slices: int, batch_size: int, uses: int, patch: int | None
) -> None:
    settings = {"batch_size": batch_size, "patches_per_slice": uses, "epochs": 2}
    batches = run(make_data(slices), patch=patch, **settings)
    training = Training(batch_size=batch_size, patches_per_slice=uses, local_epochs=2, patch=32)
    assert len(batches) == training.steps_per_round(slices)
    half = len(batches) // 2
    for epoch in (batches[:half], batches[half:]):
        used = Counter(chain.from_iterable(slices_of(batch) for batch in epoch))
        assert used == dict.fromkeys(range(slices), uses)
    sizes = [len(batch.low) for batch in batches]
    assert sizes[:half] == sizes[half:]
    assert set(sizes[: half - 1]) <= {batch_size}


def test_batches_depend_on_the_stream_alone() -> None:
    data = make_data()
    first, again, other = run(data, 1), run(data, 1), run(data, 2)
    assert all(torch.equal(a.low, b.low) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.low, b.low) for a, b in zip(first, other, strict=True))
    assert [slices_of(b) for b in first[:6]] != [slices_of(b) for b in first[6:]]


def test_patch_centres_are_uniform_over_the_body() -> None:
    data = make_data(1)
    batches = run(data, patch=1, patches_per_slice=4000, batch_size=4000, epochs=1)
    counts = np.zeros((SIZE, SIZE))
    np.add.at(counts, tuple(batches[0].origin.numpy().T), 1)
    assert (counts[data.body[0] == 0] == 0).all()
    inside = counts[data.body[0] == 1]
    expected = 4000 / inside.size
    chi_square = ((inside - expected) ** 2 / expected).sum()
    assert chi_square < inside.size + 5 * np.sqrt(2 * inside.size)


def test_tiny_and_missing_bodies() -> None:
    body = np.zeros((2, SIZE, SIZE), np.uint8)
    body[0, 20, 3] = 1
    batches = run(make_data(2, body), patches_per_slice=50)
    places: dict[int, set[tuple[int, ...]]] = {0: set(), 1: set()}
    for batch in batches:
        for i, origin in zip(slices_of(batch), batch.origin.tolist(), strict=True):
            places[i].add(tuple(origin))
    assert places[0] == {(18, 1)}
    assert len(places[1]) > 30


@pytest.mark.parametrize("patch", [SIZE + 1, 0])
def test_impossible_patch_is_refused(patch: int) -> None:
    with pytest.raises(PhysFedError, match=rf"training.patch is {patch} .* {SIZE}"):
        run(make_data(), patch=patch)


def test_whole_batches_cover_every_slice_in_order() -> None:
    data = make_data(7)
    batches = list(whole_batches(data, 3))
    assert [rows for rows, _ in batches] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    for rows, batch in batches:
        np.testing.assert_array_equal(batch.low[:, 0], data.low[rows])
        np.testing.assert_array_equal(batch.full[:, 0], data.full[rows])
        np.testing.assert_array_equal(batch.embedding, data.embedding[rows])
        assert not batch.origin.any()
        assert batch.low.is_contiguous()


class Counted(np.ndarray):
    """Slices that count how often each of them was read."""

    counts: Counter[int]

    def __getitem__(self, key):
        rows = key[0] if isinstance(key, tuple) else key
        if isinstance(rows, slice):
            self.counts.update(range(*rows.indices(len(self))))
        return np.asarray(self)[key]


def test_one_whole_batch_reads_its_slices_alone() -> None:
    data, counts = make_data(7), Counter[int]()
    for name in ("low", "full", "embedding", "embedding_mask"):
        counted = getattr(data, name).view(Counted)
        counted.counts = counts
        data = replace(data, **{name: counted})
    for start in range(0, 7, 3):
        counts.clear()
        batch = whole_batch(data, slice(start, start + 3))
        assert counts == dict.fromkeys(range(start, min(start + 3, 7)), 4)
        np.testing.assert_array_equal(batch.low[:, 0], make_data(7).low[start : start + 3])
        assert len(batch.origin) == len(batch.low)

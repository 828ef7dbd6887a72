"""Batches of patches and of whole images, gathered from memory-mapped client data."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from physfed_ray.batch import Batch
from physfed_ray.data.store import ClientData
from physfed_ray.errors import PhysFedError

# With a tenth of the image inside the body, 1 patch in 850 is still unplaced after 64 draws.
_DRAWS = 64


def steps_per_round(slices: int, *, batch_size: int, patches_per_slice: int, epochs: int) -> int:
    """Return how many batches ``training_batches`` yields for that many slices."""
    return epochs * -(-slices * patches_per_slice // batch_size)


def training_batches(
    data: ClientData,
    *,
    batch_size: int,
    patch: int | None,
    patches_per_slice: int,
    epochs: int,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Yield shuffled batches in which every slice is used ``patches_per_slice`` times per epoch.

    A patch is centred on a random pixel of the body and moved inside the image where it sticks
    out, so it always contains that pixel. The last batch of an epoch may be short. The batches
    depend on ``data`` and ``rng`` alone.

    Args:
        data: The client's training slices, n x n pixels.
        batch_size: Patches per batch.
        patch: Side of a patch in pixels, or None for whole images.
        patches_per_slice: Uses of each slice in one epoch.
        epochs: Passes over the slices.
        rng: Stream for the order and the places.

    Raises:
        PhysFedError: The patch is larger than the image.
    """
    size = data.image_size if patch is None else patch
    if not 0 < size <= data.image_size:
        raise PhysFedError(
            f"training.patch is {size} pixels but the images are {data.image_size} pixels wide; "
            f"choose a patch of at most {data.image_size}, or null for whole images."
        )
    low, full = (sliding_window_view(x, (size, size), axis=(1, 2)) for x in (data.low, data.full))
    g = torch.tensor(data.g)
    every_use = np.repeat(np.arange(len(data)), patches_per_slice)
    for _ in range(epochs):
        index = rng.permutation(every_use)
        origin = _origins(data.body, index, size, rng)
        for start in range(0, len(index), batch_size):
            i, at = index[start : start + batch_size], origin[start : start + batch_size]
            yield Batch(
                low=torch.from_numpy(low[i, at[:, 0], at[:, 1]]).unsqueeze(1),
                full=torch.from_numpy(full[i, at[:, 0], at[:, 1]]).unsqueeze(1),
                g=g,
                embedding=torch.from_numpy(data.embedding[i]),
                embedding_mask=torch.from_numpy(data.embedding_mask[i].astype(bool)),
                origin=torch.from_numpy(at),
                image_size=data.image_size,
            )


def whole_batches(data: ClientData, batch_size: int) -> Iterator[tuple[slice, Batch]]:
    """Yield all slices in order as whole images, each batch with the range it covers."""
    for start in range(0, len(data), batch_size):
        rows = slice(start, min(start + batch_size, len(data)))
        yield rows, whole_batch(data, rows)


def whole_batch(data: ClientData, rows: slice) -> Batch:
    """Return some slices as whole images; no others are read."""
    low = torch.from_numpy(data.low[rows, None].copy())
    return Batch(
        low=low,
        full=torch.from_numpy(data.full[rows, None].copy()),
        g=torch.tensor(data.g),
        embedding=torch.from_numpy(data.embedding[rows].copy()),
        embedding_mask=torch.from_numpy(data.embedding_mask[rows].astype(bool)),
        origin=torch.zeros(len(low), 2, dtype=torch.int64),
        image_size=data.image_size,
    )


def _origins(
    body: np.ndarray, index: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the top-left pixels of patches around random body pixels.

    Rejection sampling over all patches at once: it touches a few pixels of the mapped masks,
    where a list of all body pixels would read every one of them in every round.

    Args:
        body: Body masks, (N, n, n) uint8.
        index: Slice of each patch, (P,) int.
        size: Side of the patches in pixels.
        rng: Stream of the places.

    Returns:
        Row and column of each patch, (P, 2) int64.
    """
    n = body.shape[-1]
    if size == n:
        return np.zeros((len(index), 2), np.int64)
    pixel = rng.integers(0, n, (len(index), 2))
    for _ in range(_DRAWS):
        outside = np.flatnonzero(body[index, pixel[:, 0], pixel[:, 1]] == 0)
        if not len(outside):
            break
        pixel[outside] = rng.integers(0, n, (len(outside), 2))
    else:
        _place_exactly(pixel, body, index, rng)
    return np.clip(pixel - size // 2, 0, n - size)


def _place_exactly(
    pixel: np.ndarray, body: np.ndarray, index: np.ndarray, rng: np.random.Generator
) -> None:
    """Move the few patches that still miss a small body; a slice without a body keeps its draw."""
    for p in np.flatnonzero(body[index, pixel[:, 0], pixel[:, 1]] == 0):
        inside = np.flatnonzero(body[index[p]])
        if len(inside):
            pixel[p] = divmod(int(rng.choice(inside)), body.shape[-1])

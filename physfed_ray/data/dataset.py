"""Batches of patches and of whole images, gathered from memory-mapped client data."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from physfed_ray.data.store import ClientData
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import BATCHED, Batch, field_of

# With a tenth of the image inside the body, 1 patch in 850 is still unplaced after 64 draws.
_DRAWS = 64


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
        PhysFedError: The patch is larger than the image, or a field cannot be cut into patches.
    """
    size = data.image_size if patch is None else patch
    if not 0 < size <= data.image_size:
        raise PhysFedError(
            f"training.patch is {size} pixels but the images are {data.image_size} pixels wide; "
            f"choose a patch of at most {data.image_size}, or null for whole images."
        )
    arrays = _arrays(data)
    _check_crops(arrays, size < data.image_size)
    every_use = np.repeat(np.arange(len(data)), patches_per_slice)
    for _ in range(epochs):
        index = rng.permutation(every_use)
        origin = _origins(data.body, index, size, rng)
        for start in range(0, len(index), batch_size):
            i, at = index[start : start + batch_size], origin[start : start + batch_size]
            cut = {name: _cut(name, array, i, at, size) for name, array in arrays.items()}
            yield _batch(data, cut, data.g[i], torch.from_numpy(at))


def whole_batches(data: ClientData, batch_size: int) -> Iterator[tuple[slice, Batch]]:
    """Yield all slices in order as whole images, each batch with the range it covers."""
    for start in range(0, len(data), batch_size):
        rows = slice(start, min(start + batch_size, len(data)))
        yield rows, whole_batch(data, rows)


def whole_batch(data: ClientData, rows: slice) -> Batch:
    """Return some slices as whole images; no others are read."""
    whole = {name: _tensor(name, array[rows].copy()) for name, array in _arrays(data).items()}
    origin = torch.zeros(len(whole["low"]), 2, dtype=torch.int64)
    return _batch(data, whole, data.g[rows].copy(), origin)


def _arrays(data: ClientData) -> dict[str, np.ndarray]:
    """Return what a batch has of every slice, by field."""
    return {field.name: getattr(data, field.name) for field in BATCHED} | dict(data.extra)


def _check_crops(names: Iterable[str], patches: bool) -> None:
    for field in map(field_of, names):
        if patches and field.crop == "none":
            raise PhysFedError(
                f"the field '{field.name}' cannot be cut into patches, because {field.reason}: set "
                "training.patch to null, for whole images"
            )


def _cut(name: str, array: np.ndarray, i: np.ndarray, at: np.ndarray, size: int) -> Tensor:
    """Take a field for patches of the slices ``i``, (B,), with their top-left pixels ``at``."""
    if field_of(name).crop != "image":
        return _tensor(name, array[i])
    windows = sliding_window_view(array, (size, size), axis=(-2, -1))
    return _tensor(name, windows[i, ..., at[:, 0], at[:, 1], :, :])


def _tensor(name: str, values: np.ndarray) -> Tensor:
    """Return what a batch has of a field: images (B, h, w) get a channel axis."""
    field = field_of(name)
    tensor = torch.from_numpy(values.astype(field.dtype, copy=False))
    return tensor.unsqueeze(1) if field.crop == "image" and tensor.ndim == 3 else tensor


def _batch(data: ClientData, fields: dict[str, Tensor], g: np.ndarray, origin: Tensor) -> Batch:
    own: dict[str, Any] = {field.name: fields.pop(field.name) for field in BATCHED}
    return Batch(
        **own,
        g=torch.from_numpy(g),
        origin=origin,
        image_size=data.image_size,
        extra=fields,
        protocol=data.protocol,
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

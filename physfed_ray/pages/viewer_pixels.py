"""Pack CT slices small enough for one page, without a loss that the page does not state.

Values are rounded to a step of HU; then every pixel is predicted from its neighbours, and from the
image before it (the denoised from the low dose), and what the prediction misses is deflated. The
browser undoes it exactly. Where the smallest picture of all slices would still be too large, the
step grows first, then pixels are averaged in blocks, and at last slices are left out.
"""

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS_HU = (1, 2, 4, 8)
"""How coarse values may become: each lies within half a step of what it was."""
LEAST_MATRIX = 128
"""Blocks are not averaged below so many pixels on the shorter side."""
OWN = ((0, -1), (0, -2), (-1, 0), (-1, -1), (-1, 1), (-2, 0))
"""Row and column of the neighbours that predict a pixel: those that are known before it."""
BEFORE = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
"""Likewise of those in the image before it."""
ONE = 4096
"""The weight 1 of a neighbour."""
_PAD, _RIDGE, _LIMIT = 2, 1.0, 32767
_ENOUGH = 1 << 15
"""So many pixels of an image are enough to fit the weights of its neighbours."""
_MARGIN = 1.05
"""The slice in the middle may be so much larger than the mean of all."""


@dataclass(frozen=True)
class Packed:
    """Slices as the page holds them.

    Attributes:
        chunks: One a slice, base64 of zlib: for every image its weights (int16), the low bytes of
            its pixels and the high bytes.
        shape: Height and width in pixels.
        step_hu: HU of one unit of a value.
        block: Side of the blocks of pixels that were averaged, 1 where none were.
        kept: Index of each slice among those that were given.
    """

    chunks: tuple[str, ...]
    shape: tuple[int, int]
    step_hu: int
    block: int
    kept: tuple[int, ...]


def pack(images: Sequence[np.ndarray], *, slices: int, max_bytes: int) -> Packed:
    """Pack slices in at most so many bytes: the finest step and the most pixels that fit.

    Args:
        images: The same slices in each way, each (N, h, w) HU.
        slices: How many slices to keep at most, spread evenly.
        max_bytes: What the chunks may take together.
    """
    kept = spread(len(images[0]), slices)
    while True:
        for block in _block_sides(images[0].shape[1:]):
            if not _seems_to_fit(images, kept, block, STEPS_HU[-1], max_bytes):
                continue
            for step in STEPS_HU:
                found = _fitting(images, kept, block, step, max_bytes)
                if found is not None:
                    return found
        if len(kept) == 1:
            raise ValueError(f"one slice does not fit {max_bytes} bytes")
        kept = tuple(kept[k] for k in spread(len(kept), len(kept) // 2))


def spread(count: int, most: int) -> tuple[int, ...]:
    """Choose at most so many of ``count`` things: the middle of each of as many equal parts."""
    parts = min(count, most)
    return tuple((2 * k + 1) * count // (2 * parts) for k in range(parts))


def _block_sides(shape: Sequence[int]) -> Iterator[int]:
    """Yield how many pixels a block may have on a side, fewest first."""
    side = 1
    while side == 1 or min(shape) >= side * LEAST_MATRIX:
        yield side
        side *= 2


def _seems_to_fit(
    images: Sequence[np.ndarray], kept: Sequence[int], block: int, step: int, max_bytes: int
) -> bool:
    """Judge by the slice in the middle."""
    middle = _chunk_of(images, kept[len(kept) // 2], block, step)
    return len(middle) * len(kept) <= max_bytes * _MARGIN


def _fitting(
    images: Sequence[np.ndarray], kept: Sequence[int], block: int, step: int, max_bytes: int
) -> Packed | None:
    """Pack, unless it gets too large."""
    if not _seems_to_fit(images, kept, block, step, max_bytes):
        return None
    chunks = tuple(_chunk_of(images, k, block, step) for k in kept)
    if sum(map(len, chunks)) > max_bytes:
        return None
    height, width = blocks(images[0][0], block).shape
    return Packed(chunks, (height, width), step, block, tuple(kept))


def blocks(image: np.ndarray, side: int) -> NDArray[np.float64]:
    """Average blocks of pixels; the last row and column repeat where a block sticks out.

    Args:
        image: (h, w).
        side: Pixels of a block on a side.

    Returns:
        (ceil(h / side), ceil(w / side)).
    """
    image = np.asarray(image, np.float64)
    if side == 1:
        return image
    over = [(0, -length % side) for length in image.shape]
    padded = np.pad(image, over, mode="edge")
    height, width = (length // side for length in padded.shape)
    averaged: NDArray[np.float64] = padded.reshape(height, side, width, side).mean(axis=(1, 3))
    return averaged


def _chunk_of(images: Sequence[np.ndarray], k: int, block: int, step: int) -> str:
    """Pack one slice of all images; runs and Huffman codes are all that noise leaves to find."""
    parts, before = [], None
    for image in images:
        rounded = np.rint(blocks(image[k], block) / step).clip(-_LIMIT, _LIMIT)
        weights, missed = _predict(rounded, before)
        folded = ((missed << 1) ^ (missed >> 15)).astype(np.uint16)
        low, high = (folded & 255).astype(np.uint8), (folded >> 8).astype(np.uint8)
        parts += [weights.astype("<i2").tobytes(), low.tobytes(), high.tobytes()]
        before = rounded
    packer = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return base64.b64encode(packer.compress(b"".join(parts)) + packer.flush()).decode()


def _predict(
    image: NDArray[np.float64], before: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """Predict every pixel by the weights of its neighbours that miss least (least squares).

    All numbers are whole and below 2^53, so that sums of doubles are exact, here and in the page.

    Returns:
        The weights in units of 1 / ONE, and what each pixel is above its prediction, modulo 2^16.
    """
    seen = [_moved(image, *place) for place in OWN]
    if before is not None:
        seen += [_moved(before, *place) for place in BEFORE]
    table = np.stack(seen).reshape(len(seen), -1)
    every = max(1, table.shape[1] // _ENOUGH)
    few = table[:, ::every]
    normal = few @ few.T + _RIDGE * np.eye(len(seen))
    best = np.linalg.solve(normal, few @ image.ravel()[::every])
    weights = np.rint(best * ONE).clip(-_LIMIT, _LIMIT)
    expected = np.floor((weights @ table + ONE // 2) / ONE)
    return weights, (image.ravel() - expected).astype(np.int64).astype(np.int16)


def _moved(image: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Return the neighbour of every pixel, 0 beyond the edge."""
    height, width = image.shape
    padded = np.pad(image, _PAD)
    top, left = _PAD + rows, _PAD + columns
    return padded[top : top + height, left : left + width]

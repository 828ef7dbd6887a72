"""Slices packed for a page: exact within the step that is stated, and below the bytes allowed."""

import base64
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from physfed_ray.pages.viewer import MAX_BYTES
from physfed_ray.pages.viewer_pixels import BEFORE, ONE, OWN, STEPS_HU, Packed, blocks, pack, spread

CHEST_HU, NOISE_HU, DISTINCT = 40.0, 45.0, 3


def slices(count: int, n: int, images: int, noise: float = NOISE_HU) -> list[NDArray[np.float64]]:
    """Return slices with the noise of a low dose, denoised and (three images) at full dose."""
    rng = np.random.default_rng(1)
    yy, xx = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    body = np.where((xx / 0.85) ** 2 + (yy / 0.65) ** 2 < 1, CHEST_HU, -1000.0)
    body = np.where(((abs(xx) - 0.4) / 0.25) ** 2 + (yy / 0.4) ** 2 < 1, -850.0, body)
    full = np.stack([gaussian_filter(body, 0.8)] * min(count, DISTINCT))
    grain = gaussian_filter(rng.normal(0, 1, full.shape), (0, 0.6, 0.6))
    low = full + grain / grain.std() * noise
    full = full + gaussian_filter(rng.normal(0, 12, full.shape), (0, 0.6, 0.6))
    made = [low, gaussian_filter(low, (0, 1, 1)), full][:images]
    return [np.resize(image, (count, n, n)) for image in made]


def unpack(packed: Packed, images: int) -> NDArray[np.float64]:
    """Return HU (images, slices, h, w): what viewer.js does, pixel by pixel."""
    height, width = packed.shape
    return np.array([_unpack(c, images, height, width) for c in packed.chunks]).swapaxes(
        0, 1
    ) * float(packed.step_hu)


def _unpack(chunk: str, images: int, height: int, width: int) -> list[NDArray[np.int64]]:
    data, at = zlib.decompress(base64.b64decode(chunk)), 0
    found: list[NDArray[np.int64]] = []
    for k in range(images):
        places = [(0, *p) for p in OWN] + [(-1, *p) for p in BEFORE[: len(BEFORE) * bool(k)]]
        weights = np.frombuffer(data, "<i2", len(places), at)
        at += 2 * len(places)
        low, high = (np.frombuffer(data, np.uint8, height * width, at + i * height * width)
                     for i in (0, 1))  # fmt: skip
        at += 2 * height * width
        folded = low.astype(int) | high.astype(int) << 8
        missed = (folded >> 1) ^ -(folded & 1)
        found.append(np.zeros((height, width), int))
        for i in range(height * width):
            y, x = divmod(i, width)
            near = [_at(found[-1] if own == 0 else found[-2], y + r, x + c) for own, r, c in places]
            total = sum(int(w) * v for w, v in zip(weights, near, strict=True))
            value = (total + ONE // 2) // ONE + missed[i]
            found[-1][y, x] = (value + 2**15) % 2**16 - 2**15
    assert at == len(data)
    return found


def _at(image: NDArray[np.int64], y: int, x: int) -> int:
    inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
    return int(image[y, x]) if inside else 0


@pytest.mark.parametrize(
    "images",
    [
        slices(1, 24, 3),
        [np.zeros((1, 3, 2))],
        [np.full((2, 1, 1), -1000.0), np.full((2, 1, 1), 31743.0)],
        [np.random.default_rng(0).integers(-32767, 32768, (1, 9, 14)) for _ in range(3)],
    ],
    ids=["ct", "constant", "one pixel", "all values"],
)
def test_every_value_comes_back_within_half_a_step(images: Sequence[np.ndarray]) -> None:
    packed = pack(images, slices=24, max_bytes=1_000_000)
    assert (packed.step_hu, packed.block) == (1, 1)
    assert np.abs(unpack(packed, len(images)) - np.array(images)).max() <= 0.5


def test_the_step_is_the_finest_that_fits() -> None:
    images, room = slices(1, 32, 2), 1_000_000
    for step in STEPS_HU:
        packed = pack(images, slices=1, max_bytes=room)
        assert packed.step_hu == step
        assert np.abs(unpack(packed, 2) - np.array(images)).max() <= step / 2
        room = sum(map(len, packed.chunks)) - 1
    with pytest.raises(ValueError, match="one slice does not fit"):
        pack(images, slices=1, max_bytes=room)


@pytest.mark.parametrize(
    ("count", "n", "images", "block"),
    [(24, 128, 3, 1), (24, 256, 3, 1), (24, 512, 2, 2), (3, 1023, 2, 4)],
)
def test_24_slices_fit(count: int, n: int, images: int, block: int) -> None:
    room = MAX_BYTES * count // 24
    packed = pack(slices(count, n, images), slices=24, max_bytes=room)
    assert sum(map(len, packed.chunks)) <= room
    assert len(packed.chunks) == count
    assert packed.block == block
    assert packed.shape == (-(-n // block),) * 2


def test_slices_are_left_out_last() -> None:
    images = slices(8, 64, 2)
    room = sum(map(len, pack(images, slices=8, max_bytes=1_000_000).chunks))
    packed = pack(images, slices=8, max_bytes=room // 3)
    assert packed.block == 1
    assert packed.step_hu > 1
    assert packed.kept == (1, 3, 5, 7)


def test_blocks_are_means_and_the_edge_repeats() -> None:
    image = np.arange(15.0).reshape(3, 5)
    expected = [[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]
    np.testing.assert_array_equal(blocks(image, 2), expected)


def test_slices_are_spread_evenly() -> None:
    assert spread(9, 1) == (4,)
    assert spread(9, 3) == (1, 4, 7)
    assert spread(3, 24) == (0, 1, 2)
    assert spread(100, 4) == (12, 37, 62, 87)

"""From HU to stored values, and the padding of the source back in its place.

The source's own bits and scale are kept where they hold the image. An image that was not changed
gets the very values of its source.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from physfed_ray.data.dicom.hounsfield import (
    LARGEST_PADDING_HU,
    LOWEST_HU,
    Words,
    made_air,
    read_words,
)
from physfed_ray.data.dicom.pixel_format import PixelFormat
from physfed_ray.data.grid import AIR_HU

_BITS = 16
_WHOLE_HU = PixelFormat(_BITS, _BITS, signed=True)
_FEW = 4
"""So many values outside the image, at most, are taken for padding that no tag names."""


@dataclass(frozen=True)
class Stored:
    """An image as it is stored.

    Attributes:
        values: (h, w) int64.
        pixels: How they are stored and scaled, and which are padding.
        clipped: How many pixels lie beyond what 16 bits hold, and were set to the nearest HU.
    """

    values: np.ndarray
    pixels: PixelFormat
    clipped: int = 0

    def words(self) -> bytes:
        """Return the values as little-endian words."""
        return self.values.astype("<i2" if self.pixels.signed else "<u2").tobytes()


def store(hu: np.ndarray, words: np.ndarray | None, source: PixelFormat) -> Stored:
    """Store an image in the bits and on the scale of its source, or else in whole HU.

    Padding keeps its values whatever the image says there, and so does a pixel whose HU are those
    of the source. Another pixel that would get a padding value gets the one beside it.

    Args:
        hu: (h, w) finite HU.
        words: (h, w) stored values of the source, as ``hounsfield.read_words`` takes them; None
            where they are not known.
        source: How the source is stored and scaled.

    Raises:
        LeftOut: The values of the source are no Hounsfield units.
    """
    hu = hu.astype(np.float64)
    values = np.rint((hu - source.intercept) / source.slope)
    if words is None:
        read, kept, padding = None, np.zeros(hu.shape, bool), source.padding
    else:
        read = read_words(words, source)
        kept = _kept(hu, read, source.slope)
        values[kept] = _whole_words(words, read, source)[kept]
        padding = _padding(values[read.tagged], source)
    singles = np.array([]) if read is None else np.unique(values[read.padded])[:_FEW]
    beyond = read is not None and bool((read.odd & kept).any())
    for pixels in _formats(source, beyond):
        if values.min() >= pixels.lowest and values.max() <= pixels.highest:
            pixels = replace(pixels, padding=_held(padding, pixels))
            return Stored(_beside_padding(values, hu, kept, singles, pixels), pixels)
    values = np.rint(np.where(kept, values * source.slope + source.intercept, hu))
    inside = np.clip(values, _WHOLE_HU.lowest, _WHOLE_HU.highest)
    if padding is not None:
        first, last = (min(max(round(source.hu(end)), _WHOLE_HU.lowest), _WHOLE_HU.highest)
                       for end in padding)  # fmt: skip
        padding = first, last
    pixels = replace(_WHOLE_HU, padding=padding)
    singles = np.rint(singles * source.slope + source.intercept)
    clipped = int(((inside != values) & ~kept).sum())
    return Stored(_beside_padding(inside, hu, kept, singles, pixels), pixels, clipped)


def _formats(source: PixelFormat, beyond: bool) -> Iterator[PixelFormat]:
    """Yield how an image can be stored on the scale of its source, the source's own way first.

    Args:
        source: How the source is stored.
        beyond: Padding uses bits above the stored ones.
    """
    if source.bits_allocated == _BITS and not beyond:
        yield replace(source, overlay_bits=0)
    for signed in (True, False):
        yield PixelFormat(_BITS, _BITS, signed, source.slope, source.intercept)


def _kept(hu: np.ndarray, read: Words, slope: float) -> np.ndarray:
    """Mark padding, and the pixels that are as they were.

    What is thinner than air was read as air; it counts as unchanged within half a HU.
    """
    step = np.where(read.hu < LOWEST_HU, max(slope / 2, 0.5), slope / 2)
    kept: np.ndarray = read.padded | (np.abs(hu - made_air(read)) <= step)
    return kept


def _whole_words(words: np.ndarray, read: Words, source: PixelFormat) -> np.ndarray:
    """Return the source's values; where bits above the stored ones are set, all bits as a number.

    Such a number is padding: 63536 beside 12 stored bits is meant as -2000.
    """
    width = source.bits_allocated
    word = words.astype(np.int64) & ((1 << width) - 1)
    word -= (word >> (width - 1)) << width
    return np.where(read.odd, word, read.value)


def _padding(there: np.ndarray, source: PixelFormat) -> tuple[int, int] | None:
    """Return first and last value that the header is to call padding: those that are.

    Args:
        there: Values of the pixels that are padding by the source's header.
        source: How the source is stored.
    """
    if source.padding is None:
        return None
    first, last = source.padding
    if there.size == 0:
        ends = [end for end in (first, last) if source.holds(end)]
        low = min(ends, default=None)
        return None if low is None else (low, low)
    if first == last:
        return int(there.flat[0]), int(there.flat[0])
    air = there[there * source.slope + source.intercept <= LARGEST_PADDING_HU]
    there = air if air.size else there  # Not both: between them lies tissue.
    return int(there.min()), int(there.max())


def _held(padding: tuple[int, int] | None, pixels: PixelFormat) -> tuple[int, int] | None:
    held = padding is not None and all(map(pixels.holds, padding))
    return padding if held else None


def _beside_padding(
    values: np.ndarray, hu: np.ndarray, kept: np.ndarray, singles: np.ndarray, pixels: PixelFormat
) -> np.ndarray:
    """Return whole values of which none is padding by chance, unless it is air in any case.

    Args:
        values: (h, w) whole numbers that the bits hold.
        hu: (h, w) what they stand for.
        kept: (h, w) the pixels that stay as they are.
        singles: Padding values, with a tag or without.
        pixels: How they are stored, with the tagged padding.
    """
    free = ~kept & (np.abs(hu - AIR_HU) > pixels.slope / 2)
    values = values.astype(np.int64)
    ranges = [(int(value), int(value)) for value in np.sort(singles)]
    if pixels.padding is not None:
        ranges.insert(0, (min(pixels.padding), max(pixels.padding)))
    for first, last in ranges:
        hit = free & (values >= first) & (values <= last)
        upwards = hu >= (pixels.hu(first) + pixels.hu(last)) / 2
        upwards = (upwards | (first <= pixels.lowest)) & (last < pixels.highest)
        values[hit] = np.where(upwards, last + 1, first - 1)[hit]
    return values

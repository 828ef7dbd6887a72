"""From stored values to Hounsfield units: bits, scale, padding, and whether it can be a CT at all.

Two errors are to be told apart here. Padding that is taken for tissue puts bone around the body;
tissue that is taken for padding gets holes. So a value is made air only where no body can have it,
or where its pixels lie as padding lies: flat, at the edge of the frame, outside a circle.
"""

from dataclasses import dataclass

import numpy as np

from physfed_ray.data.dicom.pixel_format import HIGHEST_AIR_HU, PixelFormat
from physfed_ray.data.dicom.reasons import (
    AIR_ELSEWHERE,
    BEYOND_CT,
    MORE_BITS,
    PADDING_IN_TISSUE,
    PADDING_NOT_STORED,
    PADDING_UNTAGGED,
    WINDOWED,
    LeftOut,
)
from physfed_ray.data.grid import AIR_HU

LOWEST_HU = -1024.0
"""What lies below is air, or padding that the header does not name: nothing is thinner than air."""
LARGEST_PADDING_HU = -950.0
"""A tagged padding value up to here is air in any case: lungs are denser, but for emphysema."""
SATURATED_HU = 3000.0
"""12 bits end at 3071 HU: only metal reaches that, and padding."""
HIGHEST_HU = 30_710.0
"""Where the extended CT scale ends, ten times that of 12 bits."""

_PADDED_AT_MOST = 0.6
"""Part of the frame that flat values without a tag may fill and still be padding."""
_INSIDE = 0.9
"""Padding of a round field of view leaves an ellipse of this size, of the frame's, free."""
_PROPER_AIR_HU, _PROPER_AIR = -800.0, 0.02
"""A scale is trusted where this part of a slice lies below so many HU."""
_EIGHT_BITS = 255


@dataclass(frozen=True)
class Words:
    """What the stored values of a slice mean; each array is (h, w).

    Attributes:
        value: Whole numbers, as the stored bits give them.
        hu: The same in HU, padding included.
        odd: Where bits above the stored ones are set: neither zeros nor the sign.
        tagged: Padding that the header names.
        padded: All padding.
        notes: What was done to padding, in plain words.
    """

    value: np.ndarray
    hu: np.ndarray
    odd: np.ndarray
    tagged: np.ndarray
    padded: np.ndarray
    notes: frozenset[str]


def read_words(words: np.ndarray, pixels: PixelFormat) -> Words:
    """Tell image from padding.

    Args:
        words: (h, w) whole numbers as they are allocated: bits that are not stored may hold
            anything.
        pixels: How they are stored and scaled.

    Raises:
        LeftOut: There are values that no CT has, or that the header cannot explain.
    """
    notes: set[str] = set()
    word = words.astype(np.int64) & ((1 << pixels.bits_allocated) - 1)
    value = word & ((1 << pixels.bits_stored) - 1)
    if pixels.signed:
        value -= (value >> (pixels.bits_stored - 1)) << pixels.bits_stored
    hu = value * pixels.slope + pixels.intercept
    odd = _more_bits(word, value, pixels)
    tagged = _tagged(word, value, hu, odd, pixels, notes)
    padded = tagged | _untagged(word, hu, odd, tagged, notes)
    return Words(value, hu, odd, tagged, padded, frozenset(notes))


def to_hu(words: np.ndarray, pixels: PixelFormat) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a slice in HU, and notes on what was done to it.

    Args:
        words: (h, w) whole numbers as they are allocated: bits that are not stored may hold
            anything.
        pixels: How they are stored and scaled.

    Returns:
        (h, w) float32 HU, not below -1024; padding is air, -1000. And notes, sorted.

    Raises:
        LeftOut: The values are no Hounsfield units.
    """
    read = read_words(words, pixels)
    shown = ~read.padded & (read.hu >= LOWEST_HU)
    _refuse_no_ct(read.hu, read.value, shown, ~read.padded, pixels.slope)
    return made_air(read).astype(np.float32), tuple(sorted(read.notes))


def made_air(read: Words) -> np.ndarray:
    """Return (h, w) HU in which padding, and what is thinner than air, is air."""
    return np.where(read.padded | (read.hu < LOWEST_HU), AIR_HU, read.hu)


def _more_bits(word: np.ndarray, value: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """Mark the pixels of which bits above the stored ones are set: neither zeros nor the sign."""
    unused = ((1 << pixels.bits_allocated) - 1) & ~((1 << pixels.bits_stored) - 1)
    free = unused & ~pixels.overlay_bits
    set_bits = word & free
    odd: np.ndarray = set_bits != 0
    if pixels.signed:
        odd &= ~((value < 0) & (set_bits == free))
    return odd


def _tagged(
    word: np.ndarray,
    value: np.ndarray,
    hu: np.ndarray,
    odd: np.ndarray,
    pixels: PixelFormat,
    notes: set[str],
) -> np.ndarray:
    """Mark what the header calls padding (PS3.3 C.7.5.1.1.2), where it can be padding."""
    if pixels.padding is None:
        return np.zeros(word.shape, bool)
    first, last = pixels.padding
    single = first == last
    if single:
        # Also the same bits under the other sign, in the stored or in the allocated bits.
        match = (value == pixels.same_bits(first)) | _same_word(word, first, pixels)
    else:
        ends = sorted(_range_end(end, pixels) for end in (first, last))
        match = (value >= ends[0]) & (value <= ends[1])
    sure: np.ndarray = match & (odd | (hu <= LARGEST_PADDING_HU) | (hu > HIGHEST_HU))
    doubtful = match & ~sure
    held = pixels.holds(first)
    if single and not held and not sure.any():
        notes.add(PADDING_NOT_STORED)
    if (held or not single) and doubtful.any():
        outside = _outside(doubtful, hu) if single else np.zeros_like(sure)
        if (doubtful & ~outside).any():
            notes.add(PADDING_IN_TISSUE)
        sure |= outside
    return sure


def _same_word(word: np.ndarray, number: int, pixels: PixelFormat) -> np.ndarray:
    same: np.ndarray = word == (number & ((1 << pixels.bits_allocated) - 1))
    return same


def _range_end(end: int, pixels: PixelFormat) -> int:
    """Return an end of a padding range as a stored value, the nearest one if it has none."""
    if pixels.holds(end):
        return end
    meant = pixels.same_bits(end)
    mixed_up = -(1 << (pixels.bits_stored - 1)) <= end < 1 << pixels.bits_stored
    if mixed_up and not LARGEST_PADDING_HU < pixels.hu(meant) <= HIGHEST_HU:
        return meant
    return min(max(end, pixels.lowest), pixels.highest)


def _outside(mask: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Mark the part of a value's pixels, which tissue could have, that lies as padding lies."""
    edge = _at_the_edge(mask)
    dense = bool(edge.any() and hu[edge].min() > SATURATED_HU)
    return edge if dense or _leaves_the_middle(edge) else np.zeros_like(edge)


def _untagged(
    word: np.ndarray, hu: np.ndarray, odd: np.ndarray, padded: np.ndarray, notes: set[str]
) -> np.ndarray:
    """Mark flat padding that no tag names.

    Raises:
        LeftOut: Values that no CT has, or that the header cannot explain, are no padding.
    """
    found: np.ndarray = (odd | (hu > HIGHEST_HU)) & ~padded
    if found.any():
        # A padding value and what a resampling or a compression made of it, at most.
        flat = len(np.unique(word[found])) <= 2 and found.mean() <= _PADDED_AT_MOST
        if not flat or (found & ~_at_the_edge(found)).any():
            raise LeftOut(MORE_BITS if odd[found].any() else BEYOND_CT)
    corner = word[0, 0]
    if hu[0, 0] > LARGEST_PADDING_HU and not (padded | found)[0, 0]:
        same = word == corner
        if all(same[row, column] for row in (0, -1) for column in (0, -1)):
            found |= _around_a_circle(same, hu, padded)
    if found.any():
        notes.add(PADDING_UNTAGGED)
    return found


def _around_a_circle(same: np.ndarray, hu: np.ndarray, padded: np.ndarray) -> np.ndarray:
    """Mark flat corners, if what they enclose shows that they are no part of the image."""
    edge = _at_the_edge(same)
    if hu[0, 0] > SATURATED_HU:
        is_padding = edge.mean() <= _PADDED_AT_MOST
    else:
        # Without air elsewhere the corners may be the air, on another scale.
        rest = hu[~edge & ~padded]
        proper = rest.size > 0 and (rest < _PROPER_AIR_HU).mean() >= _PROPER_AIR
        is_padding = proper and _leaves_the_middle(edge)
    return edge if is_padding else np.zeros_like(edge)


def _at_the_edge(mask: np.ndarray) -> np.ndarray:
    """Return the connected parts of a mask that reach the edge of the frame."""
    from scipy import ndimage  # Most slices never come here.

    labels, _ = ndimage.label(mask)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    reached = np.unique(border[border > 0])
    connected: np.ndarray = np.isin(labels, reached)
    return connected


def _leaves_the_middle(mask: np.ndarray) -> bool:
    """Return whether a mask has the frame's corners and nothing of the ellipse in its middle."""
    corners = [mask[row, column] for row in (0, -1) for column in (0, -1)]
    rows, columns = ((np.arange(n) * 2 - n + 1) / n for n in mask.shape)
    inside = rows[:, None] ** 2 + columns**2 <= _INSIDE**2
    return all(corners) and not (mask & inside).any()


def _refuse_no_ct(
    hu: np.ndarray, value: np.ndarray, shown: np.ndarray, kept: np.ndarray, slope: float
) -> None:
    """Refuse a slice whose values are on another scale; one that is flat says nothing.

    Args:
        hu: (h, w), HU.
        value: (h, w), as stored.
        shown: Neither padding nor below what is called air.
        kept: Not padding.
        slope: HU for each step of a value.

    Raises:
        LeftOut: They are no Hounsfield units.
    """
    below = hu[kept & (hu < 1.5 * LOWEST_HU)]
    if below.size >= 0.1 * hu.size and len(np.unique(below)) > 16:
        raise LeftOut(AIR_ELSEWHERE)  # An offset that was applied twice.
    corner = _at_the_edge(hu == hu[0, 0])
    if _leaves_the_middle(corner):
        shown = shown & ~corner  # Flat around a circle: padding, whatever the scale.
    seen = hu[shown]
    if seen.size == 0 or seen.min() == seen.max():
        return
    if _is_windowed(value[shown], slope):
        raise LeftOut(WINDOWED)
    if (seen > 1900).mean() > 0.4:
        raise LeftOut(BEYOND_CT)
    if _air_is_at_zero(seen, _frame(hu)):
        raise LeftOut(AIR_ELSEWHERE)


def _is_windowed(values: np.ndarray, slope: float) -> bool:
    """Return whether grey levels from black to white are stored as if they were CT values."""
    # From air to water it is 1000 HU; the noise of a slice that shows air alone is below 20.
    narrow = values.min() >= 0 and values.max() <= _EIGHT_BITS and slope * _EIGHT_BITS < 1000
    reaches = values.min() <= _EIGHT_BITS / 8 or values.max() >= _EIGHT_BITS * 3 / 4
    return bool(narrow and reaches and slope * values.std() >= 20)


def _air_is_at_zero(seen: np.ndarray, frame: np.ndarray) -> bool:
    """Return whether an offset of about 1000 HU got lost: air at 0, tissue at 1000.

    A crop that the body fills has no air either. But fat and marrow go below 0, most of it is no
    bone, and where there is bone, there is half as much again and more of what is between bone and
    soft tissue (in real slices; here no quarter of it).
    """
    if (seen < HIGHEST_AIR_HU).mean() > 0.001:
        return False
    at_1000 = float(((seen > 700) & (seen < 1300)).mean())
    if at_1000 >= 0.5 or (seen.min() >= 0 and seen.max() >= 700):
        return True
    between = float(((seen > 300) & (seen < 700)).mean())
    around = float((np.abs(frame) < 200).mean())
    without_fat = float((seen < -60).mean()) <= 0.005
    return at_1000 >= 0.02 and between <= at_1000 / 4 and around >= 0.5 and without_fat


def _frame(hu: np.ndarray) -> np.ndarray:
    return np.concatenate([hu[0], hu[-1], hu[:, 0], hu[:, -1]])

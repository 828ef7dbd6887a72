"""What a header says of stored values: their bits, their scale, and which are padding."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from pydicom.dataset import Dataset

from physfed_ray.data.dicom.reasons import (
    AIR_ELSEWHERE,
    BAD_SCALE,
    COLOUR,
    EIGHT_BITS,
    HIGH_BIT,
    NO_FORMAT,
    NO_HU,
    LeftOut,
)

FORMAT_TAGS = (
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
)  # fmt: skip
"""What ``read_format`` needs to judge a file before its pixels are read."""

LARGEST_SLOPE = 100.0
"""HU from one stored value to the next; the extended CT scale has 10."""
HIGHEST_AIR_HU = -200.0
"""Values that cannot go below are no Hounsfield units: a CT shows air, or could."""
LOWEST_BONE_HU = 500.0
"""Values that cannot go above are no Hounsfield units either."""
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)


@dataclass(frozen=True)
class PixelFormat:
    """How stored values become HU (PS3.3 C.7.6.3 and C.11.1).

    Attributes:
        bits_allocated: Bits from one pixel to the next: 16 or 32.
        bits_stored: How many of them, from the lowest, hold the value.
        signed: Whether the value is in two's complement.
        slope: HU for each step of the value.
        intercept: HU of the value 0.
        padding: First and last value that the header calls padding; equal for a single one.
        overlay_bits: Mask of the bits in which the header says that an overlay lies.
    """

    bits_allocated: int
    bits_stored: int
    signed: bool
    slope: float = 1.0
    intercept: float = 0.0
    padding: tuple[int, int] | None = None
    overlay_bits: int = 0

    @property
    def lowest(self) -> int:
        """The smallest value that the stored bits hold."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest value that the stored bits hold."""
        return self.lowest + (1 << self.bits_stored) - 1

    def holds(self, value: int) -> bool:
        """Return whether the stored bits can hold a value."""
        return self.lowest <= value <= self.highest

    def same_bits(self, value: int) -> int:
        """Return what the lowest bits of a number mean as a stored value.

        Writers mix up signed and unsigned: 63536 has the bits of -2000.
        """
        return (value - self.lowest) % (1 << self.bits_stored) + self.lowest

    def hu(self, value: int) -> float:
        """Return the HU of a stored value."""
        return self.slope * value + self.intercept


def read_format(dataset: Dataset) -> PixelFormat:
    """Read how the pixels are stored and scaled.

    Args:
        dataset: A header; padding and overlays may be missing where only ``FORMAT_TAGS`` were read.

    Raises:
        LeftOut: The values cannot be Hounsfield units, or the header does not say how to read them.
    """
    allocated, stored = (_whole(dataset, tag) for tag in ("BitsAllocated", "BitsStored"))
    sign = _whole(dataset, "PixelRepresentation")
    if allocated is None or stored is None or sign not in (0, 1):
        raise LeftOut(NO_FORMAT)
    if 0 < stored <= 8:
        raise LeftOut(EIGHT_BITS)
    if allocated not in (16, 32) or not 0 < stored <= allocated:
        raise LeftOut(NO_FORMAT)
    high_bit = _whole(dataset, "HighBit")
    if high_bit is not None and high_bit != stored - 1:
        raise LeftOut(HIGH_BIT)
    grey = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
    if not grey.startswith("MONOCHROME"):
        raise LeftOut(COLOUR)
    slope, intercept = _scale(dataset)
    pixels = PixelFormat(
        allocated, stored, sign == 1, slope, intercept, _padding(dataset), _overlays(dataset)
    )
    _refuse_other_units(pixels)
    return pixels


def _scale(dataset: Dataset) -> tuple[float, float]:
    try:
        values = [dataset.get(tag) for tag in ("RescaleSlope", "RescaleIntercept")]
        if None in values or "" in values or dataset.get("ModalityLUTSequence"):
            raise LeftOut(NO_HU)
        slope, intercept = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise LeftOut(BAD_SCALE) from error
    if not (isfinite(slope) and isfinite(intercept) and 0 < slope <= LARGEST_SLOPE):
        raise LeftOut(BAD_SCALE)
    return slope, intercept


def _refuse_other_units(pixels: PixelFormat) -> None:
    if pixels.hu(pixels.lowest) > HIGHEST_AIR_HU:
        raise LeftOut(AIR_ELSEWHERE)
    if pixels.hu(pixels.highest) < LOWEST_BONE_HU:
        raise LeftOut(BAD_SCALE)


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    first = _whole(dataset, "PixelPaddingValue")
    if first is None:
        return None
    last = _whole(dataset, "PixelPaddingRangeLimit")
    return first, first if last is None else last


def _overlays(dataset: Dataset) -> int:
    """Return a mask of the bits in which overlays lie (PS3.5 8.1.2, retired)."""
    mask = 0
    for group in _OVERLAY_GROUPS:
        if (group, 0x0102) in dataset and (group, 0x3000) not in dataset:
            place = dataset[group, 0x0102].value
            if isinstance(place, int) and 0 <= place < 32:
                mask |= 1 << place
    return mask


def _whole(dataset: Dataset, tag: str) -> int | None:
    """Return a whole number, None where there is none: bits of damaged files mean anything."""
    try:
        value: Any = dataset.get(tag)
        return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        return None

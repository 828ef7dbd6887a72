"""A deep copy of a header, ready to be written as Explicit VR Little Endian.

Values keep their bytes: what is not decoded cannot be misread. Names in any character set, numbers
that are none, and values that are longer than they may be go over as the hospital wrote them.
"""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

_BYTES_OF_NUMBERS = {
    "US": 2, "SS": 2, "OW": 2, "AT": 2,
    "UL": 4, "SL": 4, "FL": 4, "OL": 4, "OF": 4,
    "FD": 8, "OD": 8, "UV": 8, "SV": 8, "OV": 8,
}  # fmt: skip
"""How many bytes change places between the byte orders, by VR."""
_VRS = {vr.value for vr in VR if len(vr.value) == 2}
_PADDED_WITH_ZERO = {"UI", "OB", "UN", *_BYTES_OF_NUMBERS}
_FIRST_GROUP, _PIXELS, _AFTER_PIXELS = 0x0008, 0x7FE0, 0xFFFA


def copy_header(dataset: Dataset) -> Dataset:
    """Return a copy without pixels, private elements, signatures and group lengths.

    Args:
        dataset: Of any encoding, read from a file or made.
    """
    copy = _copied(dataset, signed=dataset.get("PixelRepresentation") == 1)
    for tag in list(copy.keys()):
        if not _FIRST_GROUP <= tag.group < _AFTER_PIXELS or tag.group == _PIXELS:
            del copy[tag]
    return copy


def _copied(dataset: Dataset, *, signed: bool) -> Dataset:
    copy = Dataset()
    copy.set_original_encoding(False, True, dataset.original_character_set)
    for element in _elements(dataset, signed):
        copy[element.tag] = element
    return copy


def _elements(dataset: Dataset, signed: bool) -> Iterator[DataElement | RawDataElement]:
    _, little = dataset.original_encoding
    for tag in list(dataset.keys()):
        if tag.is_private or tag.element == 0 or tag.group == _PIXELS:
            continue
        vr = _vr(dataset.get_item(tag).VR, tag, signed)
        if vr == "SQ":
            # What cannot be parsed cannot be freed of private elements either.
            with suppress(Exception):
                items = [_copied(item, signed=signed) for item in dataset[tag].value or ()]
                yield DataElement(tag, "SQ", Sequence(items))
            continue
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            value = _little_endian(element.value or b"", vr, little is not False)
            yield RawDataElement(tag, vr, len(value), value, 0, False, True)
        else:
            element = deepcopy(element)
            element.VR = vr
            yield element


def _vr(written: str | None, tag: BaseTag, signed: bool) -> str:
    """Return the VR of an element: as written, unless nobody knows it."""
    if written in _VRS and written != "UN":
        return str(written)
    try:
        known = dictionary_VR(tag)
    except KeyError:
        return "UN"
    if " or " not in known:
        return str(known)
    if "OW" in known:
        return "OW"
    return "SS" if signed else "US"


def _little_endian(value: bytes, vr: str, little: bool) -> bytes:
    """Return a value as it is in a little-endian file, of an even length."""
    width = _BYTES_OF_NUMBERS.get(vr, 1)
    if not little and width > 1 and len(value) % width == 0:
        swapped = bytearray(len(value))
        for place in range(width):
            swapped[place::width] = value[width - 1 - place :: width]
        value = bytes(swapped)
    if len(value) % 2:
        value += b"\0" if vr in _PADDED_WITH_ZERO else b" "
    return value

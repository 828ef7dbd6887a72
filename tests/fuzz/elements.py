"""A DICOM file as a list of elements that may be changed to what no writer would write."""

import random
import struct
from dataclasses import dataclass, replace

from tests.fuzz.mutators import damage

_LONG = {b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN"}
_UNDEFINED = 0xFFFFFFFF
_NUMBERS = {b"US": "<H", b"SS": "<h", b"UL": "<L"}

PIXEL_DATA = (0x7FE0, 0x0010)
TEXTS = (
    "", " ", "0", "-1", "1", "3", "nan", "inf", "-inf", "1e400", "1e-320", "1e30", "-0.5", "0.0005",
    "3A", "1,5", "1\\2", "1\\1", "0\\0", "1\\2\\3\\4\\5\\6", "-1\\0\\0\\0\\-1\\0", "\\", "\\\\",
    "nan\\nan", "0\\0\\nan", "1e30\\1e30\\1e30", "0\\0\\1\\0\\1\\0", "9" * 40, "1.2.3",
    "1.2.3.4.5", "700", "Secret^Person\\Other^Name",
    "ISO_IR 100", "ISO 2022 IR 87", "GB18030", "unknown set", "\x00\x00", "\xff\xfe\xfd",
    "ORIGINAL\\PRIMARY\\LOCALIZER", "DERIVED \\SECONDARY", "ORIGINAL\\PRIMARY\\AXIAL ", "AXIAL",
    "MR", "CT ", "ct", "SC", "hu", " HU", "Hounsfield", "US", "x" * 3000,
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1.99", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.1.3.10", "20209999",
)  # fmt: skip
WHOLES = (
    0, 1, 2, 7, 8, 10, 11, 12, 15, 16, 17, 24, 32, 39, 40, 41, 64, 512, 32_768, 63_536, 65_535,
)  # fmt: skip
ADDED = (
    ((0x0008, 0x0005), b"CS"), ((0x0008, 0x0000), b"UL"), ((0x0028, 0x0000), b"UL"),
    ((0x0008, 0x0068), b"CS"), ((0x0009, 0x0010), b"LO"), ((0x0009, 0x1001), b"UN"),
    ((0x0008, 0x103E), b"LO"), ((0x0010, 0x0030), b"DA"), ((0x0010, 0x0040), b"CS"),
    ((0x0018, 0x1120), b"DS"), ((0x0020, 0x0012), b"IS"), ((0x0020, 0x1041), b"DS"),
    ((0x0028, 0x0006), b"US"), ((0x0028, 0x0008), b"IS"), ((0x0028, 0x0120), b"US"),
    ((0x0028, 0x0120), b"SS"), ((0x0028, 0x0121), b"US"), ((0x0028, 0x0121), b"SS"),
    ((0x0028, 0x1054), b"LO"), ((0x0028, 0x2110), b"CS"), ((0x0028, 0x2112), b"DS"),
    ((0x0028, 0x3000), b"SQ"), ((0x5200, 0x9230), b"SQ"), ((0x6000, 0x0102), b"US"),
    ((0x7FE0, 0x0008), b"OF"), ((0xFFFC, 0xFFFC), b"OB"),
)  # fmt: skip
"""Tags that the base files lack, and whose values could mean much."""


@dataclass(frozen=True)
class Element:
    """One element as it lies in a file; ``length`` is what its header claims."""

    tag: tuple[int, int]
    vr: bytes
    value: bytes
    length: int

    def encoded(self, implicit: bool) -> bytes:
        """Return its bytes, little endian."""
        head = struct.pack("<HH", *self.tag)
        if implicit and self.tag[0] != 2:
            return head + struct.pack("<L", self.length) + self.value
        if self.vr in _LONG:
            return head + self.vr + b"\0\0" + struct.pack("<L", self.length) + self.value
        return head + self.vr + struct.pack("<H", self.length & 0xFFFF) + self.value


@dataclass(frozen=True)
class File:
    """A file's elements in order; what follows an element of undefined length is part of it."""

    elements: tuple[Element, ...]
    implicit: bool

    def encoded(self) -> bytes:
        """Return the file's bytes, with a preamble."""
        body = b"".join(element.encoded(self.implicit) for element in self.elements)
        return bytes(128) + b"DICM" + body


def parse(content: bytes, implicit: bool) -> File:
    """Take apart a little-endian file without sequences that pydicom wrote."""
    at, elements = 132, []
    while at < len(content):
        tag = struct.unpack_from("<HH", content, at)
        vr = b"  " if implicit and tag[0] != 2 else content[at + 4 : at + 6]
        if vr == b"  ":
            (length,), start = struct.unpack_from("<L", content, at + 4), at + 8
        elif vr in _LONG:
            (length,), start = struct.unpack_from("<L", content, at + 8), at + 12
        else:
            (length,), start = struct.unpack_from("<H", content, at + 6), at + 8
        end = len(content) if length == _UNDEFINED else start + length
        elements.append(Element((tag[0], tag[1]), vr, content[start:end], length))
        at = end
    return File(tuple(elements), implicit)


def damage_elements(rng: random.Random, file: File, other: File, said: list[str]) -> File:
    """Return a file with one of its elements changed, lost, doubled, moved or new.

    Args:
        rng: The source of chance.
        file: The file.
        other: One of another patient, to swap values with.
        said: To say what was done.
    """
    elements = list(file.elements)
    # The group of the file's own description comes first; other elements matter more.
    index = (
        rng.randrange(len(elements))
        if rng.random() < 0.15
        else rng.randrange(next(i for i, e in enumerate(elements) if e.tag[0] != 2), len(elements))
    )
    if rng.random() < 0.1:
        index = len(elements) - 1  # the pixels
    old = elements[index]
    how = rng.choice(
        ["value"] * 8 + ["add"] * 3 + ["delete", "empty", "swap", "double", "move", "vr", "length"]
    )
    name = f"({old.tag[0]:04x},{old.tag[1]:04x})"
    said.append(f"{how} {name}")
    if old.tag == PIXEL_DATA and old.length == _UNDEFINED and rng.random() < 0.8:
        said[-1] = "stream"
        elements[index] = replace(old, value=_with_damaged_stream(rng, old.value, said))
        how = "stream"
    elif how == "value" and old.tag != PIXEL_DATA:
        elements[index] = _with(old, odd_bytes(rng, old))
    elif how == "add":
        tag, vr = rng.choice(ADDED)
        new = Element(tag, vr, b"", 0)
        value = b"" if vr == b"SQ" else odd_bytes(rng, new)
        said[-1] = f"add ({tag[0]:04x},{tag[1]:04x})"
        said.append(repr(value[:40]))
        elements = sorted([*elements, _with(new, value)], key=lambda element: element.tag)
    elif how == "delete":
        del elements[index]
    elif how == "empty":
        elements[index] = _with(old, b"")
    elif how == "swap":
        same = [element for element in other.elements if element.tag == old.tag]
        elements[index : index + 1] = same or [old]
    elif how == "double":
        elements.insert(rng.randrange(len(elements)), old)
    elif how == "move":
        elements.insert(rng.randrange(len(elements)), elements.pop(index))
    elif how == "vr":
        elements[index] = replace(old, vr=rng.choice([b"UN", b"SQ", b"US", b"DS", b"OB", b"ZZ"]))
    else:
        lie = rng.choice([0, 1, old.length + 1, old.length + 2, 2 * old.length, 65_535, _UNDEFINED])
        elements[index] = replace(old, length=min(lie, _UNDEFINED))
    if how == "value":
        said.append(repr(elements[index].value[:40]))
    return replace(file, elements=tuple(elements))


def _with_damaged_stream(rng: random.Random, value: bytes, said: list[str]) -> bytes:
    """Damage the first fragment of compressed pixel data, and give its length rightly."""
    start = 8 + int.from_bytes(value[4:8], "little") + 8
    end = start + int.from_bytes(value[start - 4 : start], "little")
    stream = damage(rng, value[start:end], said)
    stream += bytes(len(stream) % 2)
    return value[: start - 4] + struct.pack("<L", len(stream)) + stream + value[end:]


def odd_bytes(rng: random.Random, element: Element) -> bytes:
    """Return a value that the element was not made for."""
    length = len(element.value)
    binary = element.vr in _NUMBERS or (element.vr == b"  " and length in (2, 4))
    if binary and rng.random() < 0.85:
        return struct.pack("<H", rng.choice(WHOLES)) * rng.choice([1, 1, 1, 1, 1, 1, 2, 3])
    if element.vr == b"UN" or rng.random() < 0.05:
        return rng.randbytes(rng.choice([0, 1, 2, 3, 8, 100]))
    value = rng.choice(TEXTS).encode("latin-1")
    return value + b" " * (len(value) % 2)


def _with(element: Element, value: bytes) -> Element:
    return replace(element, value=value, length=len(value))

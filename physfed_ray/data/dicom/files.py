"""Files of DICOM: opening them, checking that they are whole, and their HU.

Everything that can be wrong with a single file ends in ``LeftOut`` with a reason, so that one bad
file never stops the reading of a folder.
"""

import logging
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from physfed_ray.data.dicom.decoders import decode, may_die
from physfed_ray.data.dicom.hounsfield import to_hu
from physfed_ray.data.dicom.pixel_format import read_format
from physfed_ray.data.dicom.reasons import UNDECODABLE, LeftOut
from physfed_ray.data.dicom.within_file import WithinFile

NOT_DICOM = "not DICOM"
INDEX = "DICOMDIR index"
UNREADABLE = "unreadable"
TRUNCATED = "truncated"
UNSUPPORTED = "unsupported compression"

_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
_PIXEL_DATA = 0x7FE00010
AS_STORED: dict[str, Any] = {"raw": True, "correct_unused_bits": False}
"""For decoders: all bits of each pixel, as whether those not stored mean anything is our choice."""

_VRS_OF_PIXELS = (b"OW", b"OB", b"UN")
_ITEM = 0xFFFEE000
_SEQUENCE_END = 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom, whose messages quote header values and so could name a patient."""
    logger = pydicom.config.logger
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_slice(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return one slice as (h, w) float32 HU, and notes on what was done to it, as ``to_hu`` does.

    Raises:
        LeftOut: The pixels cannot be decoded, or their values are no Hounsfield units.
        OSError: The file cannot be read at all, so that a failing disk is not taken for bad images.
    """
    with decoding(), path.open("rb") as file:
        dataset = open_dicom(file, header_tags=None)
        pixels = read_format(dataset)
        default_layout(dataset)
        return to_hu(stored_words(dataset), pixels)


def stored_words(dataset: Dataset) -> np.ndarray:
    """Return the values of a single slice, (h, w), as stored.

    Raises:
        LeftOut: A decoder died.
        Exception: As the decoders have it: see ``decoding``.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if not may_die(syntax):
        dataset.pixel_array_options(**AS_STORED)
        return np.asarray(dataset.pixel_array)
    options = as_pixel_options(
        dataset, transfer_syntax_uid=syntax, pixel_keyword="PixelData", pixel_vr="OB", **AS_STORED
    )
    return decode(get_frame(dataset.PixelData, 0, number_of_frames=1), options)


def default_layout(dataset: Dataset) -> None:
    """Write down what a decoder wants to know of the pixels, where a header does not say it."""
    dataset.setdefault("PhotometricInterpretation", "MONOCHROME2")
    dataset.setdefault("SamplesPerPixel", 1)


@contextmanager
def decoding() -> Iterator[None]:
    """Leave out whose pixels cannot be decoded, but let a failing disk fail."""
    try:
        yield
    except (LeftOut, MemoryError):
        raise
    # The decoders are many, and each fails in its own way; only the system's errors have a number.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise LeftOut(UNDECODABLE) from error


def open_dicom(
    file: BinaryIO, header_tags: Sequence[str] | None, *, before_pixels: bool = False
) -> Dataset:
    """Parse a file, or only some tags of its header (then left at the pixel data's element).

    Args:
        file: The open file.
        header_tags: The tags; None for all.
        before_pixels: Stop at the pixel data also where all tags are read.

    Raises:
        LeftOut: It is no DICOM file, or an index of files.
    """
    start = file.read(132)
    file.seek(0)
    file = cast(BinaryIO, WithinFile(file))
    # Old exports lack the preamble and begin with an element of group 2 or 8.
    bare = start[128:] != b"DICM"
    if bare and (len(start) < 8 or start[:2] not in (b"\x02\x00", b"\x08\x00")):
        raise LeftOut(NOT_DICOM)
    dataset = pydicom.dcmread(
        file,
        stop_before_pixels=before_pixels or header_tags is not None,
        specific_tags=None if header_tags is None else list(header_tags),
        force=bare,
    )
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
    if not dataset.get("Modality") and not dataset.get("SOPClassUID"):
        if dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR_CLASS:
            raise LeftOut(INDEX)
        raise LeftOut(NOT_DICOM if bare else TRUNCATED)
    return dataset


def whole_frames(file: BinaryIO, dataset: Dataset) -> int:
    """Compare the length of the pixel data with what the header promises, without reading it.

    Args:
        file: Left by ``open_dicom`` at the pixel data's element.
        dataset: The header, with rows, columns and bits allocated.

    Returns:
        How many of the promised frames are there, from the first one on; 1 for a single slice.

    Raises:
        LeftOut: None is, or no plugin decodes the compression.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    promised = promised_frames(dataset)
    if syntax == DeflatedExplicitVRLittleEndian:
        return promised  # Inflated as a whole by the reader, which fails on a cut stream.
    if syntax.is_compressed and not _decodable(syntax):
        raise LeftOut(UNSUPPORTED)
    length = skip_to_pixels(file, dataset)
    left = os.fstat(file.fileno()).st_size - file.tell()
    if length == _UNDEFINED:
        there = _whole_fragments(file, left)
    else:
        wanted = frame_bytes(dataset)
        there = min(length, left) // wanted if wanted > 0 else 0
    if there < 1:
        raise LeftOut(TRUNCATED)
    return min(there, promised)


def promised_frames(dataset: Dataset) -> int:
    """Return how many frames a header promises.

    Raises:
        LeftOut: The number is none.
    """
    number = int(dataset.get("NumberOfFrames") or 1)
    if number < 1:
        raise LeftOut(UNREADABLE)
    return number


def skip_to_pixels(file: BinaryIO, dataset: Dataset) -> int:
    """Move from the pixel data's element to its value, and return the length that it gives.

    Raises:
        LeftOut: There is no such element.
    """
    implicit, little = dataset.original_encoding
    byte_order = "<" if little else ">"
    head = file.read(8)
    # Headers lie about it, and pydicom reads what is there. No length has these letters: each is
    # odd as a number.
    if head[4:6] in _VRS_OF_PIXELS:
        head += file.read(4)
    if len(head) < (12 if head[4:6] in _VRS_OF_PIXELS else 8):
        raise LeftOut(TRUNCATED)
    group, element = struct.unpack(f"{byte_order}HH", head[:4])
    (length,) = struct.unpack(f"{byte_order}L", head[-4:])
    if group << 16 | element != _PIXEL_DATA:
        raise LeftOut(UNREADABLE)
    promised = frame_bytes(dataset) * int(dataset.get("NumberOfFrames") or 1)
    if not implicit and len(head) == 8 and _is_vr(head[4:6]) and length != promised:
        raise LeftOut(UNREADABLE)  # Pixels of another kind, whose length is no length.
    return int(length)


def _is_vr(letters: bytes) -> bool:
    return letters.isalpha() and letters.isupper()


def frame_bytes(dataset: Dataset) -> int:
    """Return how long one uncompressed slice is."""
    return int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8


def _decodable(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _whole_fragments(file: BinaryIO, left: int) -> int:
    """Count the fragments of compressed pixel data up to the mark that ends them; 0 without it.

    The first item is a table of offsets. A frame has at least one fragment.
    """
    items = 0
    while left >= 8:
        group, element, length = struct.unpack("<HHL", file.read(8))
        left -= 8 + length
        if group << 16 | element == _SEQUENCE_END:
            return items - 1
        if group << 16 | element != _ITEM:
            return 0
        items += 1
        file.seek(length, os.SEEK_CUR)
    return 0

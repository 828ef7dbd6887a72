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
from typing import BinaryIO, cast

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from physfed_ray.data.dicom.hounsfield import to_hu
from physfed_ray.data.dicom.pixel_format import read_format
from physfed_ray.data.dicom.reasons import LeftOut
from physfed_ray.data.dicom.within_file import WithinFile

NOT_DICOM = "not DICOM"
INDEX = "DICOMDIR index"
UNREADABLE = "unreadable"
TRUNCATED = "truncated"
UNSUPPORTED = "unsupported compression"
UNDECODABLE = "undecodable pixel data"

_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
_PIXEL_DATA = 0x7FE00010
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


def read_hu(path: Path) -> np.ndarray:
    """Return one slice as (h, w) float32 HU; raises as ``read_slice`` does."""
    return read_slice(path)[0]


def read_slice(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return one slice as (h, w) float32 HU, and notes on what was done to it, as ``to_hu`` does.

    Raises:
        LeftOut: The pixels cannot be decoded, or their values are no Hounsfield units.
        OSError: The file cannot be read at all, so that a failing disk is not taken for bad images.
    """
    try:
        with path.open("rb") as file:
            dataset = open_dicom(file, header_tags=None)
            pixels = read_format(dataset)
            dataset.setdefault("PhotometricInterpretation", "MONOCHROME2")
            dataset.setdefault("SamplesPerPixel", 1)
            # All bits of each pixel: whether those that are not stored mean anything is our choice.
            dataset.pixel_array_options(raw=True, correct_unused_bits=False)
            return to_hu(dataset.pixel_array, pixels)
    except LeftOut:
        raise
    except MemoryError:
        raise
    # The decoders are many, and each fails in its own way; only the system's errors have a number.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise LeftOut(UNDECODABLE) from error


def open_dicom(file: BinaryIO, header_tags: Sequence[str] | None) -> Dataset:
    """Parse a file, or only some tags of its header (then left at the pixel data's element).

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
        stop_before_pixels=header_tags is not None,
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


def refuse_incomplete_pixels(file: BinaryIO, dataset: Dataset) -> None:
    """Compare the length of the pixel data with what the header promises, without reading it.

    Args:
        file: Left by ``open_dicom`` at the pixel data's element.
        dataset: The header, with rows, columns and bits allocated.

    Raises:
        LeftOut: The file is cut short, or no plugin decodes its compression.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax == DeflatedExplicitVRLittleEndian:
        return  # Inflated as a whole by the reader, which fails on a cut stream.
    if syntax.is_compressed and not _decodable(syntax):
        raise LeftOut(UNSUPPORTED)
    _, little = dataset.original_encoding
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
    left = os.fstat(file.fileno()).st_size - file.tell()
    if length == _UNDEFINED:
        complete = _fragments_are_complete(file, left)
    else:
        wanted = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
        complete = wanted <= min(length, left) and wanted > 0
    if not complete:
        raise LeftOut(TRUNCATED)


def _decodable(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _fragments_are_complete(file: BinaryIO, left: int) -> bool:
    """Hop over the fragments of compressed pixel data to the mark that ends them."""
    while left >= 8:
        group, element, length = struct.unpack("<HHL", file.read(8))
        left -= 8 + length
        if group << 16 | element == _SEQUENCE_END:
            return True
        if group << 16 | element != _ITEM:
            return False
        file.seek(length, os.SEEK_CUR)
    return False

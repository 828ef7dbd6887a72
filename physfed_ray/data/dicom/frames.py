"""Multi-frame CT: each frame of an Enhanced or Legacy Converted CT image as a slice of its own.

Such a file keeps what differs between its slices in functional groups (PS3.3 C.7.6.16), some for
all frames, some for each. ``frame_header`` writes them out as the header that the same slice would
have in a file of its own, so that everything else treats frames and files alike.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from physfed_ray.data.dicom.codestream import HEAD_BYTES
from physfed_ray.data.dicom.decoders import decode, may_die
from physfed_ray.data.dicom.files import (
    AS_STORED,
    decoding,
    default_layout,
    frame_bytes,
    open_dicom,
    promised_frames,
    read_slice,
    skip_to_pixels,
)
from physfed_ray.data.dicom.hounsfield import to_hu
from physfed_ray.data.dicom.pixel_format import read_format

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_OF_CONVERTED = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
"""What a converter found in the single files and had no other place for (PS3.3 C.7.6.16.2)."""
_MACROS = (
    "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence",
    "PixelValueTransformationSequence", "CTImageFrameTypeSequence", "FrameContentSequence",
    "CTAcquisitionTypeSequence", "CTReconstructionSequence", "CTGeometrySequence",
    "CTXRayDetailsSequence", "CardiacSynchronizationSequence",
)  # fmt: skip
_RENAMED = {
    "FrameType": "ImageType",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
}
_OF_ONE_SLICE = (*GROUPS, "ImagePositionPatient", "SliceLocation", "InstanceNumber")
"""What the head of the file cannot say of its frames, or no longer says once they are split."""
_LAYOUT = 0x0028
"""Group of the elements that describe the pixels of the whole file."""


def has_frames(dataset: Dataset) -> bool:
    """Say whether a header is that of a CT image in frames whose geometry is known."""
    return dataset.get("SOPClassUID") in _CLASSES and any(dataset.get(name) for name in GROUPS)


def frame_count(dataset: Dataset, there: int) -> int:
    """Return how many of the frames that a header promises are worth a look.

    A wrong number may be huge. What is neither in the file nor described is no frame.

    Args:
        dataset: The header of the file, with ``GROUPS``.
        there: As of ``files.whole_frames``.
    """
    described = len(dataset.get(GROUPS[1]) or ())
    if _is_deflated(dataset):
        there = 1  # Nobody has counted them.
    return min(promised_frames(dataset), max(described, there))


def frame_header(dataset: Dataset, index: int) -> Dataset:
    """Return the header of one frame, as in a file of its own.

    Stacks get series of their own. A frame has an instance number only where a converter kept that
    of the single file: the order in a multi-frame file is no position.

    Args:
        dataset: The header of the file, with ``GROUPS``.
        index: The frame, from 0.
    """
    flat = Dataset()
    flat.file_meta = dataset.file_meta
    implicit, little = dataset.original_encoding
    flat.set_original_encoding(implicit, little, dataset.original_character_set)
    for raw in map(dataset.get_item, dataset.keys()):
        flat[raw.tag] = copy(raw)  # What is set below would else be set in the file's header too.
    for name in _OF_ONE_SLICE:
        flat.pop(name, None)
    groups = list(groups_of(dataset, index))
    for names in (_OF_CONVERTED, _MACROS):
        for group in groups:
            for name in names:
                write_out(group, name, flat)
    for name, classic in _RENAMED.items():
        if flat.get(name) is not None:
            setattr(flat, classic, flat[name].value)
    if flat.get("AcquisitionType") == "CONSTANT_ANGLE":
        flat.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    elif "MIXED" in (flat.get("ImageType") or ())[:1]:
        flat.ImageType = ["DERIVED"]  # Some frames are, and this one does not say that it is not.
    if acquired := str(flat.get("FrameAcquisitionDateTime") or ""):
        flat.AcquisitionDate, flat.AcquisitionTime = acquired[:8], acquired[8:]
    if stack := str(flat.get("StackID") or "").strip():
        flat.SeriesInstanceUID = f"{flat.get('SeriesInstanceUID') or ''} {stack.zfill(4)}"
    flat.SOPClassUID = CTImageStorage
    flat.NumberOfFrames = 1
    return flat


def read_image(path: Path, index: int | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a slice as (h, w) float32 HU, and notes on what was done to it.

    No other frame is decoded, or held in memory unless the whole file is deflated.

    Args:
        path: The file.
        index: The frame, from 0; None for a slice in a file of its own.

    Raises:
        LeftOut: As of ``files.read_slice``.
        OSError: As of ``files.read_slice``.
    """
    if index is None:
        return read_slice(path)
    frame = read_frame(path, index)
    with decoding():
        return to_hu(frame.words, read_format(frame_header(frame.file_header, index)))


@dataclass(frozen=True)
class Frame:
    """One frame as it is in its file.

    Attributes:
        file_header: Of the whole file, which other frames share: not to be changed.
        words: (h, w), as stored.
        stream: The beginning of compressed pixel data, empty for others.
        stream_bytes: How long the pixel data are, in bytes, or a little less.
    """

    file_header: Dataset
    words: np.ndarray
    stream: bytes
    stream_bytes: int


def read_frame(path: Path, index: int) -> Frame:
    """Return one frame of a file.

    Raises:
        LeftOut: The pixels cannot be decoded.
        OSError: As of ``files.read_slice``.
    """
    with decoding():
        state = path.stat()
        dataset, start, stream = _opened(path, state.st_size, state.st_mtime_ns)
        words = _stored(path, dataset, start, index)
        return Frame(dataset, words, stream, state.st_size - start)


# Two: full and low dose, or a file and its copy, are read side by side.
@lru_cache(maxsize=2)
def _opened(path: Path, size: int, changed_ns: int) -> tuple[Dataset, int, bytes]:
    """Parse a file up to its pixels, and say where and how these begin; kept for its next frames.

    A deflated file is inflated whole: its pixels are in the data set, and the place means nothing.
    """
    with path.open("rb") as file:
        dataset = open_dicom(file, header_tags=None, before_pixels=True)
        if _is_deflated(dataset):
            file.seek(0)
            dataset = open_dicom(file, header_tags=None)
        else:
            skip_to_pixels(file, dataset)
        default_layout(dataset)
        start = file.tell()
        packed = UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated
        return dataset, start, file.read(HEAD_BYTES) if packed else b""


def _stored(path: Path, dataset: Dataset, start: int, index: int) -> np.ndarray:
    """Return what a file holds of one frame, (h, w), as stored."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    decoder = get_decoder(syntax)
    if _is_deflated(dataset):
        return np.asarray(decoder.as_array(dataset, index=index, **AS_STORED)[0])
    options = as_pixel_options(
        dataset, transfer_syntax_uid=syntax, pixel_keyword="PixelData", pixel_vr="OW", **AS_STORED
    )
    with path.open("rb") as file:
        if syntax.is_encapsulated:
            file.seek(start)
            if may_die(syntax):
                count, offsets = options["number_of_frames"], options.get("extended_offsets")
                frame = get_frame(file, index, number_of_frames=count, extended_offsets=offsets)
                return decode(frame, options)
            return np.asarray(decoder.as_array(file, index=index, **options)[0])
        length = frame_bytes(dataset)
        file.seek(start + index * length)
        return np.asarray(
            decoder.as_array(
                BytesIO(file.read(length)), index=0, **(options | {"number_of_frames": 1})
            )[0]
        )


def _is_deflated(dataset: Dataset) -> bool:
    return bool(dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian)


def groups_of(dataset: Dataset, index: int) -> Iterator[Dataset]:
    """Yield the functional groups of all frames, then those of one, which win."""
    shared, each = (dataset.get(name) or [] for name in GROUPS)
    yield from shared[:1]
    yield from each[index : index + 1]


def write_out(group: Dataset, name: str, flat: Dataset) -> None:
    """Copy the elements of a macro into a header.

    What a converter kept says nothing about the pixels' layout.
    """
    for item in (group.get(name) or [])[:1]:
        for raw in map(item.get_item, item.keys()):
            if name not in _OF_CONVERTED or (raw.tag.group != _LAYOUT and raw.tag not in flat):
                flat[raw.tag] = copy(raw)

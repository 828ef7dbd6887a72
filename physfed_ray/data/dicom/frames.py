"""Multi-frame CT: each frame of an Enhanced or Legacy Converted CT image as a slice of its own.

Such a file keeps what differs between its slices in functional groups (PS3.3 C.7.6.16), some for
all frames, some for each. ``frame_header`` writes them out as the header that the same slice would
have in a file of its own, so that everything else treats frames and files alike.
"""

from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from physfed_ray.data.dicom.files import decoding, frame_bytes, open_dicom, skip_to_pixels, to_hu

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
    "CardiacSynchronizationSequence",
)  # fmt: skip
_RENAMED = {"FrameType": "ImageType", "FrameAcquisitionNumber": "AcquisitionNumber"}
_OF_ONE_SLICE = (*GROUPS, "ImagePositionPatient", "SliceLocation", "InstanceNumber")
"""What the head of the file cannot say of its frames, or no longer says once they are split."""
_STACKS = (
    "StackID", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase", "ConvolutionKernel",
)  # fmt: skip
"""Frames that differ in these are other series: other stacks, points in time or kernels."""
_LAYOUT = 0x0028
"""Group of the elements that describe the pixels of the whole file."""


def has_frames(dataset: Dataset) -> bool:
    """Say whether a header is that of a CT image in frames whose geometry is known."""
    return dataset.get("SOPClassUID") in _CLASSES and any(dataset.get(name) for name in GROUPS)


def frame_count(dataset: Dataset) -> int:
    """Return how many frames a header promises."""
    return int(dataset.get("NumberOfFrames") or 1)


def frame_header(dataset: Dataset, index: int) -> Dataset:
    """Return the header of one frame, as in a file of its own.

    Stacks, points in time and kernels get series of their own. A frame has an instance number only
    where the file says its position: the order in a file alone is no position.

    Args:
        dataset: The header of the file, with ``GROUPS``.
        index: The frame, from 0.
    """
    flat = Dataset()
    flat.file_meta = dataset.file_meta
    implicit, little = dataset.original_encoding
    flat.set_original_encoding(implicit, little, dataset.original_character_set)
    for raw in map(dataset.get_item, dataset.keys()):
        flat[raw.tag] = raw
    for name in _OF_ONE_SLICE:
        flat.pop(name, None)
    groups = list(_groups(dataset, index))
    for names in (_OF_CONVERTED, _MACROS):
        for group in groups:
            for name in names:
                _write_out(group, name, flat)
    for name, classic in _RENAMED.items():
        if flat.get(name) is not None:
            setattr(flat, classic, flat[name].value)
    if flat.get("AcquisitionType") == "CONSTANT_ANGLE":
        flat.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    elif "MIXED" in (flat.get("ImageType") or ())[:1]:
        flat.ImageType = ["DERIVED"]  # Some frames are, and this one does not say that it is not.
    if flat.get("ImagePositionPatient") or flat.get("SliceLocation") is not None:
        flat.InstanceNumber = index + 1
    stack = [str(flat.get(name) or "").zfill(4) for name in _STACKS if flat.get(name)]
    if stack:
        flat.SeriesInstanceUID = " ".join([str(flat.get("SeriesInstanceUID") or ""), *stack])
    if flat.get("SOPInstanceUID"):
        flat.SOPInstanceUID = f"{flat.SOPInstanceUID} {index + 1}"
    flat.SOPClassUID = CTImageStorage
    flat.NumberOfFrames = 1
    return flat


def read_frame_hu(path: Path, index: int) -> np.ndarray:
    """Return one frame as (h, w) float32 HU, as ``files.read_hu`` returns a single slice.

    No other frame is decoded, or held in memory unless the whole file is deflated.

    Args:
        path: The file.
        index: The frame, from 0.

    Raises:
        LeftOut: The frame cannot be decoded.
        OSError: The file cannot be read at all.
    """
    with decoding():
        state = path.stat()
        dataset, start = _opened(path, state.st_size, state.st_mtime_ns)
        return to_hu(_stored(path, dataset, start, index), frame_header(dataset, index))


@lru_cache(maxsize=1)
def _opened(path: Path, size: int, changed_ns: int) -> tuple[Dataset, int]:
    """Parse a file up to its pixels, and say where these begin; kept for its next frames.

    A deflated file is inflated whole: its pixels are in the data set, and begin nowhere.
    """
    with path.open("rb") as file:
        dataset = open_dicom(file, header_tags=None, before_pixels=True)
        if _is_deflated(dataset):
            file.seek(0)
            return open_dicom(file, header_tags=None), 0
        skip_to_pixels(file, dataset)
        return dataset, file.tell()


def _stored(path: Path, dataset: Dataset, start: int, index: int) -> np.ndarray:
    """Return what a file holds of one frame, (h, w), as stored."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    decoder = get_decoder(syntax)
    if _is_deflated(dataset):
        return np.asarray(decoder.as_array(dataset, index=index)[0])
    options = as_pixel_options(
        dataset, transfer_syntax_uid=syntax, pixel_keyword="PixelData", pixel_vr="OW"
    )
    with path.open("rb") as file:
        if syntax.is_encapsulated:
            file.seek(start)
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


def _groups(dataset: Dataset, index: int) -> Iterator[Dataset]:
    """Yield the groups of all frames, then those of one, which win."""
    shared, each = (dataset.get(name) or [] for name in GROUPS)
    yield from shared[:1]
    yield from each[index : index + 1]


def _write_out(group: Dataset, name: str, flat: Dataset) -> None:
    """Copy the elements of a macro; what a converter kept says nothing about the pixels' layout."""
    for item in (group.get(name) or [])[:1]:
        for raw in map(item.get_item, item.keys()):
            if name not in _OF_CONVERTED or (raw.tag.group != _LAYOUT and raw.tag not in flat):
                flat[raw.tag] = raw

"""Multi-frame CT files made of single slices, as scanners and converters write them."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    generate_uid,
)

MACROS = {
    "PixelMeasuresSequence": ["PixelSpacing"],
    "PlanePositionSequence": ["ImagePositionPatient"],
    "PlaneOrientationSequence": ["ImageOrientationPatient"],
    "PixelValueTransformationSequence": ["RescaleIntercept", "RescaleSlope", "RescaleType"],
    "CTImageFrameTypeSequence": ["FrameType"],
}
"""Functional groups (PS3.3 C.7.6.16) and what they take from a single slice."""
NEVER_SHARED = "PlanePositionSequence"


def macro(name: str, single: Dataset) -> Dataset:
    item = Dataset()
    for keyword in MACROS[name]:
        value = single.get("ImageType" if keyword == "FrameType" else keyword)
        if value is not None:
            setattr(item, keyword, value)
    return item


def write_frames(
    path: Path,
    singles: Sequence[Dataset],
    *,
    legacy: bool = False,
    shared: Sequence[str] = ("PixelMeasuresSequence", "PlaneOrientationSequence"),
    content: Sequence[dict[str, Any]] = (),
    syntax: UID = ExplicitVRLittleEndian,
    **attributes: Any,
) -> Path:
    """Write slices of one shape as the frames of one file, in the order in which they are given.

    Args:
        path: The file to write.
        singles: Data sets of single slices, uncompressed or not.
        legacy: As a Legacy Converted file, with what has no other place in unassigned groups.
        shared: Functional groups that are written once, with the values of the first slice.
        content: What each frame's FrameContentSequence says.
        syntax: Transfer syntax.
        **attributes: Replaces attributes of the file's head; None removes them.
    """
    first, frames = singles[0], Dataset()
    frames.file_meta = type(first.file_meta)()
    for element in first:
        if element.tag.group in (0x0008, 0x0010, 0x0018, 0x0020, 0x0028):
            frames[element.tag] = copy(element)
    moved = [keyword for keywords in MACROS.values() for keyword in keywords]
    for keyword in (*moved, "SliceLocation", "InstanceNumber", "AcquisitionNumber"):
        frames.pop(keyword, None)
    frames.SOPClassUID = LegacyConvertedEnhancedCTImageStorage if legacy else EnhancedCTImageStorage
    frames.SOPInstanceUID = generate_uid()
    frames.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    frames.InstanceNumber = 1
    frames.NumberOfFrames = len(singles)
    common = Dataset()
    for name in shared:
        setattr(common, name, [macro(name, first)])
    frames.SharedFunctionalGroupsSequence = [common]
    frames.PerFrameFunctionalGroupsSequence = [
        _own_groups(single, index, shared, legacy, content) for index, single in enumerate(singles)
    ]
    for keyword, value in attributes.items():
        if value is None:
            frames.pop(keyword, None)
        else:
            setattr(frames, keyword, value)
    big = syntax == ExplicitVRBigEndian
    pixels = np.stack([single.pixel_array for single in singles])
    frames.PixelData = pixels.astype(pixels.dtype.newbyteorder("<>"[big])).tobytes()
    frames["PixelData"].VR = "OW"
    frames.file_meta.MediaStorageSOPClassUID = frames.SOPClassUID
    frames.file_meta.MediaStorageSOPInstanceUID = frames.SOPInstanceUID
    native = not syntax.is_encapsulated
    frames.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    if not native:
        frames.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames.save_as(path, enforce_file_format=True)
    return path


def _own_groups(
    single: Dataset,
    index: int,
    shared: Sequence[str],
    legacy: bool,
    content: Sequence[dict[str, Any]],
) -> Dataset:
    group = Dataset()
    for name in MACROS:
        if name not in shared:
            setattr(group, name, [macro(name, single)])
    said = Dataset()
    for keyword, value in (content[index] if content else {}).items():
        setattr(said, keyword, value)
    group.FrameContentSequence = [said]
    if legacy:
        rest = Dataset()
        for keyword in ("SliceLocation", "InstanceNumber", "AcquisitionNumber"):
            if single.get(keyword) is not None:
                setattr(rest, keyword, single[keyword].value)
        rest.BitsStored = 3  # no reader may believe a converter's leftovers about the layout
        group.UnassignedPerFrameConvertedAttributesSequence = [rest]
    return group

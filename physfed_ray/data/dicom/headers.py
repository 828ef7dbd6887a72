"""The header of a DICOM file: is it an original axial CT image, whose, and where does it lie."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from physfed_ray.data.dicom.files import (
    TRUNCATED,
    UNREADABLE,
    LeftOut,
    open_dicom,
    whole_frames,
)
from physfed_ray.data.dicom.frames import GROUPS, frame_count, frame_header, has_frames

LOCALIZER = "localizer"
DOSE_SCREEN = "dose screen"
SECONDARY_CAPTURE = "secondary capture"
DERIVED = "derived image"
MULTI_FRAME = "multi-frame image"
PROJECTIONS = "projection data"
NOT_AXIAL = "not axial"
NO_SPACING = "no pixel spacing"
NO_POSITION = "no position"
NO_HU = "no Hounsfield scale"

SMALLEST_AXIAL_COSINE = 0.8
"""Slices tilted by up to 37 degrees count as axial: gantries tilt by at most 30."""

_CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
_SECONDARY_CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
_DOSE_TYPE = re.compile(r"SCREEN.?SAVE|DOSE|\bPROT")
_DOSE_DESCRIPTION = re.compile(
    r"dose.?(report|info|record|summary|sheet|page)|(patient|exam).?(protocol|summary)", re.I
)
_PROJECTION_TAGS = ["0x70291010", "0x70291011"]
"""Private elements that every file of DICOM-CT-PD has: rows and columns of the detector."""
_HEADER_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "StudyInstanceUID",
    "StudyDate", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "AcquisitionNumber",
    "InstanceNumber", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "SliceLocation", "PixelSpacing", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel",
    "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "RescaleType",
    *_PROJECTION_TAGS,
]  # fmt: skip


@dataclass(frozen=True)
class SliceHeader:
    """What sorting needs to know of one usable CT slice.

    Attributes:
        path: The file.
        number: The file's place in the sorted listing of the folder, from 1.
        patient: PatientID, or the study's UID where the id is blank.
        position_mm: Along the normal of the slice, which points towards the head.
        spacing_mm: Row and column spacing.
        order: What breaks ties between slices at one position (acquisition, instance number).
        frame_index: Its place in a multi-frame file, from 0; None for a file with one slice.
    """

    path: Path
    number: int
    patient: str
    study: str
    date: str
    frame: str
    series: str
    series_number: int
    instance_uid: str
    position_mm: float
    spacing_mm: tuple[float, float]
    order: tuple[int, int]
    frame_index: int | None = None


@dataclass(frozen=True)
class LeftOutFrame:
    """A frame that is no usable CT slice, in a file that has others.

    Attributes:
        index: The frame, from 0.
        reason: As ``LeftOut`` has it.
    """

    index: int
    reason: str


def read_headers(path: Path, number: int) -> list[SliceHeader | LeftOutFrame]:
    """Read what sorting needs of each slice of a file, without its pixels.

    Raises:
        LeftOut: The file holds no original axial CT image, or is not complete.
    """
    with _parsing(), path.open("rb") as file:
        dataset = open_dicom(file, [*_HEADER_TAGS, *GROUPS])
        if not has_frames(dataset):
            _refuse_other_kinds(dataset)
            whole_frames(file, dataset)
            return [_parse(dataset, path, number)]
        found: list[SliceHeader | LeftOutFrame] = []
        there = whole_frames(file, dataset)
        for index in range(frame_count(dataset)):
            try:
                found.append(_read_frame(dataset, index, there, path, number))
            except LeftOut as left_out:
                found.append(LeftOutFrame(index, str(left_out)))
        reasons = {entry.reason for entry in found if isinstance(entry, LeftOutFrame)}
        if len(reasons) == 1 and not any(isinstance(entry, SliceHeader) for entry in found):
            raise LeftOut(reasons.pop())
        return found


def _read_frame(dataset: Dataset, index: int, there: int, path: Path, number: int) -> SliceHeader:
    with _parsing():
        header = frame_header(dataset, index)
        _refuse_other_kinds(header)
        if index >= there:
            raise LeftOut(TRUNCATED)
        return replace(_parse(header, path, number), frame_index=index)


@contextmanager
def _parsing() -> Iterator[None]:
    """Leave out whose header cannot be read."""
    try:
        yield
    except LeftOut:
        raise
    except (zlib.error, EOFError) as error:
        raise LeftOut(TRUNCATED) from error
    # pydicom raises whatever its parsing of broken values runs into.
    except Exception as error:
        raise LeftOut(UNREADABLE) from error


def _refuse_other_kinds(dataset: Dataset) -> None:
    """Leave out what is no original axial CT image: screens, captures, other modalities."""
    sop_class = str(dataset.get("SOPClassUID") or "")
    modality = str(dataset.get("Modality") or "").strip()
    kind = [str(value).upper() for value in _values(dataset, "ImageType")]
    description = str(dataset.get("SeriesDescription") or "")
    is_screen = any(map(_DOSE_TYPE.search, kind)) or _DOSE_DESCRIPTION.search(description)
    captured = sop_class.startswith(_SECONDARY_CAPTURE_CLASS)
    if modality in ("CT", "OT", "") and captured:
        raise LeftOut(DOSE_SCREEN if is_screen else SECONDARY_CAPTURE)
    if modality == "" and sop_class != _CT_CLASS:
        raise LeftOut(UNREADABLE)  # Every object has a modality: this header is cut or broken.
    if modality not in ("CT", ""):
        # The value is free text in a broken file, and so could be anything.
        named = modality if re.fullmatch(r"[A-Z]{2,10}", modality) else "unknown"
        raise LeftOut(f"other modality ({named})")
    if "LOCALIZER" in kind or "SCOUT" in kind:
        raise LeftOut(LOCALIZER)
    if is_screen:
        raise LeftOut(DOSE_SCREEN)
    if _is_projection(dataset, description):
        raise LeftOut(PROJECTIONS)
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise LeftOut(SECONDARY_CAPTURE)
    if "DERIVED" in kind[:1] or "SECONDARY" in kind[1:2]:
        raise LeftOut(DERIVED)
    if int(dataset.get("NumberOfFrames") or 1) != 1 or sop_class.startswith(f"{_CT_CLASS}."):
        raise LeftOut(MULTI_FRAME)


def _is_projection(dataset: Dataset, description: str) -> bool:
    """Say whether a file holds raw projections (DICOM-CT-PD), which call themselves CT."""
    if any(tag in dataset for tag in _PROJECTION_TAGS):
        return True
    placed = dataset.get("ImageOrientationPatient") or dataset.get("ImagePositionPatient")
    return not placed and re.search(r"\bprojections?\b", description, re.I) is not None


def _parse(dataset: Dataset, path: Path, number: int) -> SliceHeader:
    spacing = [float(value) for value in _values(dataset, "PixelSpacing")]
    if len(spacing) != 2 or not all(0 < value < np.inf for value in spacing):
        raise LeftOut(NO_SPACING)
    scale = [dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")]
    # "US" is "unspecified", which older scanners write beside Hounsfield units.
    if None in scale or str(dataset.get("RescaleType") or "HU") not in ("HU", "US"):
        raise LeftOut(NO_HU)
    position = _position_mm(dataset)
    study = str(dataset.get("StudyInstanceUID") or "")
    return SliceHeader(
        path=path,
        number=number,
        patient=str(dataset.get("PatientID") or "").strip() or f"study {study}",
        study=study,
        date=str(dataset.get("StudyDate") or ""),
        frame=str(dataset.get("FrameOfReferenceUID") or ""),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        series_number=int(dataset.get("SeriesNumber") or 0),
        instance_uid=str(dataset.get("SOPInstanceUID") or ""),
        position_mm=position,
        spacing_mm=(spacing[0], spacing[1]),
        order=(
            int(dataset.get("AcquisitionNumber") or 0),
            int(dataset.get("InstanceNumber") or 0),
        ),
    )


def _position_mm(dataset: Dataset) -> float:
    """Return the position along the slice's normal, or the next best thing that orders slices.

    A tilted gantry gives a tilted normal: the slices are kept as they were taken, in the tilted
    plane, and ordered along its normal.
    """
    cosines = np.array(_values(dataset, "ImageOrientationPatient"), np.float64)
    normal = np.array([0.0, 0.0, 1.0])
    if cosines.size == 6:
        normal = np.cross(cosines[:3], cosines[3:])
        normal /= max(float(np.linalg.norm(normal)), np.finfo(float).tiny)
    elif _values(dataset, "ImageType")[2:3] not in ([], ["AXIAL"]):
        raise LeftOut(NOT_AXIAL)
    if abs(normal[2]) < SMALLEST_AXIAL_COSINE:
        raise LeftOut(NOT_AXIAL)
    corner = np.array(_values(dataset, "ImagePositionPatient"), np.float64)
    if corner.size == 3:
        position = float(corner @ normal * np.sign(normal[2]))
    elif dataset.get("SliceLocation") is not None:
        position = float(dataset.SliceLocation)
    elif dataset.get("InstanceNumber") is not None:
        position = float(dataset.InstanceNumber)
    else:
        raise LeftOut(NO_POSITION)
    if not np.isfinite(position):
        raise LeftOut(NO_POSITION)
    return position


def _values(dataset: Dataset, keyword: str) -> list[Any]:
    """Return an attribute's values as a list, empty where it is absent or blank."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)

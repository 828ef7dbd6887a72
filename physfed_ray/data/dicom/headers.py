"""The header of a DICOM file: is it an original axial CT image, whose, and where does it lie."""

import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from physfed_ray.data.dicom.files import (
    TRUNCATED,
    UNREADABLE,
    open_dicom,
    promised_frames,
    whole_frames,
)
from physfed_ray.data.dicom.frames import GROUPS, frame_count, frame_header, has_frames
from physfed_ray.data.dicom.names import is_dose_sheet, is_hounsfield, is_localizer
from physfed_ray.data.dicom.person import NOBODY, Person, person_of
from physfed_ray.data.dicom.pixel_format import FORMAT_TAGS, read_format
from physfed_ray.data.dicom.reasons import NO_HU, LeftOut
from physfed_ray.data.dicom.tags import number as number_of
from physfed_ray.data.dicom.tags import numbers, text, values, whole_number
from physfed_ray.data.dicom.truth import TRUTH_TAGS, image_type, refuse_untrue

LOCALIZER = "localizer"
DOSE_SCREEN = "dose screen"
SECONDARY_CAPTURE = "secondary capture"
MULTI_FRAME = "multi-frame image"
PROJECTIONS = "projection data"
NOT_AXIAL = "not axial"
NO_SPACING = "no pixel spacing"
ODD_SPACING = "impossible pixel spacing"
ODD_SIZE = "impossible image size"
NO_POSITION = "no position"

SMALLEST_AXIAL_COSINE = 0.8
"""Slices tilted by up to 37 degrees count as axial: gantries tilt by at most 30."""

PIXEL_MM = (0.05, 5.0)
"""Pixels of whole-body scanners are 0.2 to 2 mm; what lies beyond these is a mistake."""

LARGEST_DISTANCE_MM = 100.0
"""Between neighbouring slices."""

IMAGE_PIXELS = (16, 4096)
"""Rows and columns of a CT image; more would fill the memory before anything is noticed."""

_CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
_SECONDARY_CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
_PROJECTION_TAGS = ["0x70291010", "0x70291011"]
"""Private elements that every file of DICOM-CT-PD has: rows and columns of the detector."""
_HEADER_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID", "StudyDate",
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "AcquisitionNumber",
    "InstanceNumber", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "SliceLocation", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames",
    "RescaleType", "PatientName", "PatientBirthDate", "PatientSex", "AcquisitionDate",
    "AcquisitionTime", "SliceThickness", "SpacingBetweenSlices", "TemporalPositionIdentifier",
    "ConvolutionKernel", "KVP", "NominalPercentageOfCardiacPhase", *FORMAT_TAGS, *TRUTH_TAGS,
    *_PROJECTION_TAGS,
]  # fmt: skip


@dataclass(frozen=True)
class SliceHeader:
    """What sorting needs to know of one usable CT slice.

    Attributes:
        path: The file.
        number: The file's place in the sorted listing of the folder, from 1.
        patient: PatientID as it stands there, perhaps blank; once ``people`` has told patients
            apart, the id of the patient.
        position_mm: Along the normal of the slice, which points towards the head; NaN where the
            header has none, until ``stacks.place`` has found one.
        spacing_mm: Row and column spacing.
        order: What breaks ties between slices at one position (acquisition, instance number).
        person: Whom the header names, until patients are told apart.
        stack: What is the same for slices that were taken and reconstructed in one go.
        time: Date and time of the acquisition, as digits.
        location_mm: SliceLocation, whose origin and direction are the vendor's.
        instance: InstanceNumber.
        distance_mm: Distance to the next slice, as the header says; 1 where it says nothing.
        notes: What is to be said of a slice that stays: why it is let in.
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
    person: Person = NOBODY
    stack: tuple[object, ...] = ()
    time: str = ""
    location_mm: float | None = None
    instance: int | None = None
    distance_mm: float = 1.0
    notes: tuple[str, ...] = ()
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


def read_headers(
    path: Path, number: int, *, lossy: bool = False, derived: bool = False
) -> list[SliceHeader | LeftOutFrame]:
    """Read what sorting needs of each slice of a file, without its pixels.

    Args:
        path: The file.
        number: Its place in the listing.
        lossy: As in ``refuse_untrue``.
        derived: As in ``refuse_untrue``.

    Raises:
        LeftOut: The file holds no original axial CT image, or is not complete.
    """
    with _parsing(), path.open("rb") as file:
        dataset = open_dicom(file, [*_HEADER_TAGS, *GROUPS])
        pixels = file.tell()

        def judge(header: Dataset) -> tuple[str, ...]:
            _refuse_other_kinds(header)
            file.seek(pixels)
            return refuse_untrue(file, header, lossy=lossy, derived=derived)

        if not has_frames(dataset):
            notes = judge(dataset)
            whole_frames(file, dataset)
            return [replace(_parse(dataset, path, number), notes=notes)]
        there = whole_frames(file, dataset)

        def read_frame(index: int) -> SliceHeader | LeftOutFrame:
            try:
                with _parsing():
                    header = frame_header(dataset, index)
                    notes = judge(header)
                    if index >= there:
                        raise LeftOut(TRUNCATED)
                    return _parse_frame(header, path, number, index, notes)
            except LeftOut as left_out:
                return LeftOutFrame(index, str(left_out))

        count = frame_count(dataset, there)
        found = [read_frame(index) for index in range(count)]
    if promised_frames(dataset) > count:
        found.append(LeftOutFrame(count, TRUNCATED))
    reasons = {entry.reason for entry in found if isinstance(entry, LeftOutFrame)}
    if len(reasons) == 1 and not any(isinstance(entry, SliceHeader) for entry in found):
        raise LeftOut(reasons.pop())
    return found


def _parse_frame(
    header: Dataset, path: Path, number: int, index: int, notes: tuple[str, ...]
) -> SliceHeader:
    """Parse the header of a frame; its place in the file breaks ties, and is no instance number."""
    parsed = _parse(header, path, number)
    order = parsed.order if parsed.instance is not None else (parsed.order[0], index + 1)
    return replace(parsed, frame_index=index, notes=notes, order=order)


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
    kind = image_type(dataset)
    description = text(dataset, "SeriesDescription")
    planning, is_screen = is_localizer(kind, description), is_dose_sheet(kind, description)
    captured = sop_class.startswith(_SECONDARY_CAPTURE_CLASS)
    if modality in ("CT", "OT", "") and captured:
        captured_kind = DOSE_SCREEN if is_screen else SECONDARY_CAPTURE
        raise LeftOut(LOCALIZER if planning else captured_kind)
    if modality == "" and sop_class != _CT_CLASS:
        raise LeftOut(UNREADABLE)  # Every object has a modality: this header is cut or broken.
    if modality not in ("CT", ""):
        # The value is free text in a broken file, and so could be anything.
        named = modality if re.fullmatch(r"[A-Z]{2,10}", modality) else "unknown"
        raise LeftOut(f"other modality ({named})")
    if planning:
        raise LeftOut(LOCALIZER)
    if is_screen:
        raise LeftOut(DOSE_SCREEN)
    if _is_projection(dataset, description):
        raise LeftOut(PROJECTIONS)
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise LeftOut(SECONDARY_CAPTURE)
    if int(dataset.get("NumberOfFrames") or 1) != 1 or sop_class.startswith(f"{_CT_CLASS}."):
        raise LeftOut(MULTI_FRAME)


def _is_projection(dataset: Dataset, description: str) -> bool:
    """Say whether a file holds raw projections (DICOM-CT-PD), which call themselves CT."""
    if any(tag in dataset for tag in _PROJECTION_TAGS):
        return True
    placed = dataset.get("ImageOrientationPatient") or dataset.get("ImagePositionPatient")
    return not placed and re.search(r"\bprojections?\b", description, re.I) is not None


def _parse(dataset: Dataset, path: Path, number: int) -> SliceHeader:
    spacing = _spacing_mm(dataset)
    if not is_hounsfield(text(dataset, "RescaleType")):
        raise LeftOut(NO_HU)
    read_format(dataset)
    position, cosines = _position_mm(dataset)
    location, instance = (
        number_of(dataset, "SliceLocation"),
        whole_number(dataset, "InstanceNumber"),
    )
    if position is None and location is None and instance is None:
        raise LeftOut(NO_POSITION)
    patient = text(dataset, "PatientID")
    acquired = text(dataset, "AcquisitionDate") + text(dataset, "AcquisitionTime")
    return SliceHeader(
        path=path,
        number=number,
        patient=patient,
        study=text(dataset, "StudyInstanceUID"),
        date=text(dataset, "StudyDate"),
        frame=text(dataset, "FrameOfReferenceUID"),
        series=text(dataset, "SeriesInstanceUID"),
        series_number=whole_number(dataset, "SeriesNumber") or 0,
        instance_uid=text(dataset, "SOPInstanceUID"),
        position_mm=math.nan if position is None else position,
        spacing_mm=spacing,
        order=(whole_number(dataset, "AcquisitionNumber") or 0, instance or 0),
        person=person_of(dataset, patient),
        stack=_stack_of(dataset, cosines, spacing),
        time=re.sub(r"[^\d.]", "", acquired),
        location_mm=location,
        instance=instance,
        distance_mm=_distance_mm(dataset),
    )


def _spacing_mm(dataset: Dataset) -> tuple[float, float]:
    """Return the spacing of rows and columns; refuse what no scanner makes, before it is loaded."""
    spacing = numbers(dataset, "PixelSpacing")
    if len(spacing) != 2 or not min(spacing) > 0:
        raise LeftOut(NO_SPACING)
    low_mm, high_mm = PIXEL_MM
    if not low_mm <= min(spacing) <= max(spacing) <= high_mm:
        raise LeftOut(ODD_SPACING)
    fewest, most = IMAGE_PIXELS
    size = int(dataset.Rows), int(dataset.Columns)
    if not fewest <= min(size) <= max(size) <= most:
        raise LeftOut(ODD_SIZE)
    return spacing[0], spacing[1]


def _stack_of(
    dataset: Dataset, cosines: np.ndarray, spacing_mm: tuple[float, float]
) -> tuple[object, ...]:
    """Return what tells stacks of slices in one series apart."""
    thickness, voltage = number_of(dataset, "SliceThickness"), number_of(dataset, "KVP")
    return (
        whole_number(dataset, "AcquisitionNumber"),
        whole_number(dataset, "TemporalPositionIdentifier"),
        text(dataset, "ConvolutionKernel").upper(),
        number_of(dataset, "NominalPercentageOfCardiacPhase"),
        tuple(str(value).strip().upper() for value in values(dataset, "ImageType")[2:]),
        tuple(round(float(value), 2) + 0.0 for value in cosines),
        tuple(round(value, 3) for value in spacing_mm),
        (int(dataset.Rows), int(dataset.Columns)),
        None if thickness is None else round(thickness, 2),
        None if voltage is None else round(voltage),
    )


def _distance_mm(dataset: Dataset) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        distance = abs(number_of(dataset, keyword) or 0.0)
        if 0 < distance <= LARGEST_DISTANCE_MM:
            return distance
    return 1.0


def _position_mm(dataset: Dataset) -> tuple[float | None, np.ndarray]:
    """Return the position along the slice's normal, if the header has one, and the cosines.

    A tilted gantry gives a tilted normal: the slices are kept as they were taken, in the tilted
    plane, and ordered along its normal.

    Returns:
        The position, mm; direction cosines of rows and columns, (6,), empty where there are none.
    """
    cosines = np.array(numbers(dataset, "ImageOrientationPatient"), np.float64)
    normal = np.array([0.0, 0.0, 1.0])
    if cosines.size == 6:
        normal = np.cross(cosines[:3], cosines[3:])
        normal /= max(float(np.linalg.norm(normal)), np.finfo(float).tiny)
    elif image_type(dataset)[2:3] not in ([], ["AXIAL"]):
        raise LeftOut(NOT_AXIAL)
    if abs(normal[2]) < SMALLEST_AXIAL_COSINE:
        raise LeftOut(NOT_AXIAL)
    corner = np.array(numbers(dataset, "ImagePositionPatient"), np.float64)
    if corner.size != 3:
        return None, cosines
    position = float(corner @ normal * np.sign(normal[2]))
    return (position if math.isfinite(position) else None), cosines

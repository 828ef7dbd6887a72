"""Undamaged DICOM files of every encoding, and what pydicom makes of a damaged one."""

import io
import os
import pickle
import signal
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from tests.data.conftest import compress
from tests.data.dicom.multiframe import write_frames
from tests.fuzz.elements import File, parse

SIZE = 40


@dataclass(frozen=True)
class Base:
    """An undamaged file.

    Attributes:
        content: Its bytes.
        patient: Whose it is.
        hu: The HU of its slices, (40, 40) each: one, or as many as it has frames.
        z_mm: Their positions.
        parsed: Its elements, None if it is deflated.
    """

    content: bytes
    patient: str
    hu: tuple[np.ndarray, ...]
    z_mm: tuple[float, ...]
    parsed: File | None


@dataclass(frozen=True)
class Seen:
    """A slice as pydicom sees it: its HU, (h, w), and its pixel spacing where it has one."""

    hu: np.ndarray
    spacing_mm: tuple[float, ...]


def _body(seed: int) -> np.ndarray:
    """Return a small slice with air around it, fat, muscle and bone, unlike any other seed's."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    radius = np.hypot(x / 0.8, y / rng.uniform(0.55, 0.75))
    hu = np.select([radius < 0.25, radius < 0.85, radius < 1], [700.0, 45.0, -100.0], -1000.0)
    return np.clip(np.rint(hu + rng.normal(0, 8, hu.shape)), -1020, 3000).astype(np.float32)


def _dataset(patient: str, number: int, hu: np.ndarray, intercept: int, syntax: UID) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[patient, str(number)])
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientID, dataset.PatientName = patient, f"Secret^{patient}"
    dataset.PatientBirthDate, dataset.PatientSex = "19600101", "F"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[patient, keyword]))
    dataset.StudyDate, dataset.SeriesNumber, dataset.InstanceNumber = "20200101", 1, number + 1
    dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "1200", "1", ""
    dataset.ImagePositionPatient = [-100, -100, 5.0 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.75, 0.5], 5
    dataset.Rows = dataset.Columns = SIZE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(intercept == 0)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, intercept, "HU"
    stored = (hu - intercept).astype("<i2" if intercept == 0 else "<u2")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    native = not syntax.is_encapsulated
    dataset.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    if not native:
        with tempfile.TemporaryDirectory() as folder:
            compress(dataset, syntax, Path(folder, "slice"))
    return dataset


def single(patient: str, number: int, seed: int, intercept: int, syntax: UID) -> Base:
    """Return a file of one slice.

    Args:
        patient: Whose it is.
        number: Its place in the body, from 0.
        seed: What its image looks like.
        intercept: HU of the stored value 0; signed where it is 0.
        syntax: Transfer syntax.
    """
    hu = _body(seed)
    buffer = io.BytesIO()
    _dataset(patient, number, hu, intercept, syntax).save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    parsed = None if syntax.is_deflated else parse(content, syntax.is_implicit_VR)
    return Base(content, patient, (hu,), (5.0 * number,), parsed)


def several(folder: Path, patient: str, seeds: Sequence[int], *, legacy: bool) -> Base:
    """Return a file of as many frames as there are seeds."""
    images = [_body(seed) for seed in seeds]
    singles = [
        _dataset(patient, number, hu, -1024, ExplicitVRLittleEndian)
        for number, hu in enumerate(images)
    ]
    content = write_frames(folder / patient, singles, legacy=legacy).read_bytes()
    places = tuple(5.0 * number for number in range(len(images)))
    return Base(content, patient, tuple(images), places, parse(content, implicit=False))


def make_files(folder: Path) -> dict[str, Base]:
    """Return files of several patients by name: native, implicit, signed, compressed, in frames."""
    compressed = (
        RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1,
        DeflatedExplicitVRLittleEndian,
    )  # fmt: skip
    explicit, implicit = ExplicitVRLittleEndian, ImplicitVRLittleEndian
    return {
        **{f"A/{n}.dcm": single("A", n, n, -1024, explicit) for n in range(4)},
        **{f"B/im{n}": single("B", n, 10 + n, 0, implicit) for n in range(3)},
        **{f"C/{n}": single("C", n, 20 + n, -1024, syntax) for n, syntax in enumerate(compressed)},
        "F/enhanced": several(folder, "F", (30, 31, 32), legacy=False),
        "L/legacy": several(folder, "L", (40, 41), legacy=True),
    }


def seen_by_pydicom(content: bytes) -> list[Seen]:
    """Return the slices that pydicom sees in a file, none where it makes nothing of it.

    Of a file that is cut short the frames that are whole count.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(content), force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = (
                    ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                )
            frames = min(int(dataset.get("NumberOfFrames") or 1), 9)
            native = not UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated
        except Exception:  # pydicom raises whatever it runs into
            return []
        if native:
            return _whole_slices(dataset, frames)
        return _in_child(lambda: _whole_slices(dataset, frames))


def _in_child(see: Callable[[], list[Seen]]) -> list[Seen]:
    """Return what a function returns in a fork; nothing if its decoder dies or takes for ever."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(5)
        with os.fdopen(writer, "wb") as file:
            pickle.dump(see(), file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    return list(pickle.loads(answer)) if status == 0 else []


def _whole_slices(dataset: Dataset, frames: int) -> list[Seen]:
    for count in range(frames, 0, -1):
        try:
            if frames > 1:
                dataset.NumberOfFrames = count
            return _slices(dataset)
        except Exception:  # with one frame less, perhaps
            continue
    return []


def _slices(dataset: Dataset) -> list[Seen]:
    pixels = dataset.pixel_array
    if "SharedFunctionalGroupsSequence" not in dataset:
        return [_seen(pixels, dataset, dataset)]
    return [
        _seen(
            frame,
            _macro(dataset, index, "PixelValueTransformationSequence"),
            _macro(dataset, index, "PixelMeasuresSequence"),
        )
        for index, frame in enumerate(pixels.reshape(-1, *pixels.shape[-2:]))
    ]


def _seen(pixels: np.ndarray, scale: Dataset, measures: Dataset) -> Seen:
    spacing = measures.get("PixelSpacing")
    hu = np.asarray(apply_rescale(pixels, scale), np.float64)
    return Seen(hu, tuple(float(value) for value in spacing) if spacing else ())


def _macro(dataset: Dataset, index: int, name: str) -> Dataset:
    """Return a functional group of a frame: its own, or that of all frames, or the head."""
    for groups, at in (("PerFrame", index), ("Shared", 0)):
        items = dataset.get(f"{groups}FunctionalGroupsSequence") or []
        if at < len(items) and items[at].get(name):
            return items[at][name].value[0]
    return dataset

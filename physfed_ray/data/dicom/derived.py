"""Derived CT images: what a network made of a slice, as a DICOM file beside its source.

``read_source`` reads what an image is derived from, ``derive`` makes the derived image, and
``write_derived`` writes it. The header is the source's own, patient included: who may see the
source may see the result, and nobody else.
"""

import hashlib
from copy import deepcopy
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from physfed_ray.atomic import atomic_file
from physfed_ray.data.dicom.files import (
    decoding,
    default_layout,
    open_dicom,
    quiet_pydicom,
    stored_words,
)
from physfed_ray.data.dicom.frames import read_frame
from physfed_ray.data.dicom.pixel_format import read_format
from physfed_ray.data.dicom.tags import text, whole_number
from physfed_ray.data.dicom.writing.frames import classic_header
from physfed_ray.data.dicom.writing.header import copy_header
from physfed_ray.data.dicom.writing.outdated import drop_outdated
from physfed_ray.data.dicom.writing.pixels import Stored, store
from physfed_ray.data.dicom.writing.provenance import (
    MANUFACTURER,
    SMOOTHING,
    coded,
    derived_type,
    description,
    equipment,
    longer,
    say_lossy,
    source_reference,
)
from physfed_ray.data.dicom.writing.uids import derived_uid
from physfed_ray.errors import DivergedError

SERIES_SUFFIX = "denoised"
SERIES_NUMBER_STEP = 1000
"""What is added to the number of the source's series."""

_LARGEST_NUMBER = 2**31 - 1
_PIXEL_GROUPS = (0x0028, 0x7FE0)


@dataclass(frozen=True)
class Model:
    """What made the images.

    Attributes:
        name: Method, client and round, such as ``SCAN-PhysFed, client c1, round 30``.
        version: Of physfed_ray.
        run_hash: Hexadecimal, of ``model.json`` and the weights in use.
        purpose: One sentence that says what was done.
    """

    name: str
    version: str
    run_hash: str
    purpose: str


def read_source(path: Path, frame: int | None = None) -> Dataset:
    """Read what ``derive`` takes: a whole header with the pixels of one slice, uncompressed.

    Args:
        path: A CT file.
        frame: The frame of a multi-frame file, from 0; None for a slice in a file of its own.

    Raises:
        LeftOut: The pixels cannot be decoded.
        OSError: As of ``files.read_slice``.
    """
    with quiet_pydicom(), decoding():
        if frame is None:
            with path.open("rb") as file:
                source = open_dicom(file, header_tags=None)
            words = _words(source)
            _say_lossy(source, source)
        else:
            read = read_frame(path, frame)
            source, words = classic_header(read.file_header, frame), read.words
            say_lossy(source, read.file_header, read.stream, read.stream_bytes)
        source.file_meta = deepcopy(source.file_meta)
        source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        default_layout(source)
        source.PixelData = words.astype(f"<u{int(source.BitsAllocated) // 8}").tobytes()
        source["PixelData"].VR = "OW"
        return source


def derive(
    source: Dataset,
    hu: np.ndarray,
    model: Model,
    *,
    frame: int | None = None,
    window_hu: tuple[float, float] | None = None,
) -> Dataset:
    """Return a derived CT image, for ``write_derived``.

    The same source and model give the same UIDs. Where the source has padding, it stays.

    Args:
        source: The source's header, with its pixel data: as of ``read_source``, or as pydicom reads
            a file with one slice. It is not changed.
        hu: (h, w) HU, with the rows and columns of the source.
        model: What made the image.
        frame: The frame that the source was, as in ``read_source``.
        window_hu: First and last HU to show, instead of the window of the source.

    Raises:
        LeftOut: The source's pixels cannot be decoded or are no Hounsfield units.
        DivergedError: There are values that are no numbers.
        ValueError: The image has another shape than its source.
    """
    if hu.shape != (source.Rows, source.Columns):
        raise ValueError(f"{hu.shape} is not the shape of a {source.Rows} x {source.Columns} slice")
    if not np.isfinite(hu).all():
        raise DivergedError(
            f"{model.name} made values that are no numbers: use the weights of an earlier round"
        )
    with quiet_pydicom():
        with decoding():
            words = _words(source) if "PixelData" in source else None
            stored = store(hu, words, read_format(source))
        image = copy_header(source)
        _say_lossy(image, source)
        drop_outdated(image)
        _set_pixels(image, stored)
        if window_hu is not None:
            _set_window(image, *window_hu)
        _set_provenance(image, source, model, frame, stored.clipped)
        _set_identity(image, source, model, frame, stored)
    return image


def write_derived(dataset: Dataset, path: Path) -> None:
    """Write what ``derive`` returned, as Explicit VR Little Endian; the file is whole or absent.

    Raises:
        PhysFedError: A folder is where the file is to be.
        OSError: The file cannot be written.
    """
    with quiet_pydicom(), atomic_file(path) as temporary:
        dcmwrite(temporary, dataset, enforce_file_format=True)


def _words(source: Dataset) -> np.ndarray:
    """Decode the pixels without touching the source."""
    part = Dataset()
    part.file_meta = source.file_meta
    part.set_original_encoding(*source.original_encoding, source.original_character_set)
    for tag in list(source.keys()):
        if tag.group in _PIXEL_GROUPS:
            part[tag] = source.get_item(tag)
    part.pop("NumberOfFrames", None)
    default_layout(part)
    return stored_words(part)


def _say_lossy(header: Dataset, source: Dataset) -> None:
    stream = source.PixelData if "PixelData" in source else b""
    say_lossy(header, source, stream, len(stream))


def _set_pixels(image: Dataset, stored: Stored) -> None:
    """Set the Image Pixel module (PS3.3 C.7.6.3) and the scale, as far as they change."""
    pixels = stored.pixels
    default_layout(image)
    image.BitsAllocated, image.BitsStored = pixels.bits_allocated, pixels.bits_stored
    image.HighBit, image.PixelRepresentation = pixels.bits_stored - 1, int(pixels.signed)
    scale = pixels.slope, pixels.intercept
    if (float(image.RescaleSlope), float(image.RescaleIntercept)) != scale:
        image.RescaleSlope, image.RescaleIntercept = (f"{number:g}" for number in scale)
    numbers = {
        "SmallestImagePixelValue": int(stored.values.min()),
        "LargestImagePixelValue": int(stored.values.max()),
    }
    if pixels.padding is not None:
        first, last = pixels.padding
        numbers["PixelPaddingValue"] = first
        if first != last:
            numbers["PixelPaddingRangeLimit"] = last
    for name, number in numbers.items():
        image[name] = DataElement(Tag(name), "SS" if pixels.signed else "US", number)
    image[Tag("PixelData")] = DataElement(Tag("PixelData"), "OW", stored.words())


def _set_window(image: Dataset, low_hu: float, high_hu: float) -> None:
    """Show low and all below as black, high and all above as white (PS3.3 C.11.2.1.2)."""
    for name in ("WindowCenterWidthExplanation", "VOILUTFunction"):
        image.pop(name, None)
    image.WindowCenter = f"{(low_hu + high_hu + 1) / 2:g}"
    image.WindowWidth = f"{high_hu - low_hu + 1:g}"


def _set_provenance(
    image: Dataset, source: Dataset, model: Model, frame: int | None, clipped: int
) -> None:
    """Say what the image is derived from, how, and by what (PS3.3 C.7.6.1.1.3, C.12.1)."""
    image.ImageType = derived_type(source, frame=frame is not None)
    said = description(model.purpose, model.name, model.run_hash, clipped)
    image.DerivationDescription = said
    earlier = list(image.get("DerivationCodeSequence") or ())
    image.DerivationCodeSequence = [*earlier, *coded(SMOOTHING)]
    image.pop("SourceImageSequence", None)
    if source.get("SOPInstanceUID"):
        sop_class = _source_class(source, frame)
        reference = source_reference(sop_class, source.SOPInstanceUID, frame)
        image.SourceImageSequence = [reference]
    earlier = list(image.get("ContributingEquipmentSequence") or ())
    made_by = equipment(model.name, model.version, model.run_hash, said)
    image.ContributingEquipmentSequence = [*earlier, made_by]


def _source_class(source: Dataset, frame: int | None) -> UID:
    """Return the class of the source's file, which the header of a frame no longer has."""
    kept = source.file_meta.get("MediaStorageSOPClassUID") if frame is not None else None
    return UID(kept or source.get("SOPClassUID") or CTImageStorage)


def _set_identity(
    image: Dataset, source: Dataset, model: Model, frame: int | None, stored: Stored
) -> None:
    """Make the image an object of its own, in a series of its own."""
    made_by = astuple(model)
    instance = text(source, "SOPInstanceUID") or hashlib.sha256(stored.words()).hexdigest()
    series = [text(source, name) for name in ("StudyInstanceUID", "SeriesInstanceUID")]
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = derived_uid("image", instance, str(frame), *made_by)
    image.SeriesInstanceUID = derived_uid("series", *series, *made_by)
    image.Modality = "CT"
    number = whole_number(source, "SeriesNumber") or 0
    fits = abs(number) <= _LARGEST_NUMBER - SERIES_NUMBER_STEP
    image.SeriesNumber = (number if fits else 0) + SERIES_NUMBER_STEP
    image.SeriesDescription = longer(text(source, "SeriesDescription"), SERIES_SUFFIX)
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.ImplementationClassUID = derived_uid("implementation")
    image.file_meta.ImplementationVersionName = MANUFACTURER.upper()

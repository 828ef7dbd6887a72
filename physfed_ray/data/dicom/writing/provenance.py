"""What a derived image says of its making: source, derivation, equipment, compression."""

import re
import unicodedata

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.uid import UID

from physfed_ray.data.dicom.codestream import HEAD_BYTES
from physfed_ray.data.dicom.tags import text
from physfed_ray.data.dicom.truth import image_type, is_lossy

SMOOTHING = Code("113087", "DCM", "Smoothing")
"""How the image was derived (PS3.16 CID 7203, which has no code for denoising)."""
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
"""Why the source is referred to (CID 7202)."""
PROCESSING = Code("109102", "DCM", "Processing Equipment")
"""What the equipment did (CID 7005)."""
MANUFACTURER = "physfed_ray"

_LONG_STRING, _SHORT_TEXT, _CODE = 64, 1024, 16
_METHODS = {
    "1.2.840.10008.1.2.4.8": "ISO_14495_1",
    "1.2.840.10008.1.2.4.9": "ISO_15444_1",
    "1.2.840.10008.1.2.4.11": "ISO_18181_1",
    "1.2.840.10008.1.2.4.20": "ISO_15444_15",
}
"""Beginnings of transfer syntaxes, and the standard of their compression (PS3.3 C.7.6.1.1.5.1)."""
_ELEMENT_HEAD = bytes(12)


def plain(words: str, most: int) -> str:
    """Return text that any character set has, on one line, without what parts values."""
    letters = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[\\\x00-\x1f\x7f]", " ", letters).split())[:most].strip()


def derived_type(dataset: Dataset, *, frame: bool) -> list[str]:
    """Return the ImageType of what is derived from an axial image.

    Args:
        dataset: The header of the source.
        frame: It is a frame, whose third and fourth values mean something else.
    """
    _, examination, _, *more = [*image_type(dataset), "", "", ""]
    examination = "SECONDARY" if examination == "SECONDARY" else "PRIMARY"
    more = [] if frame else [v for v in more if re.fullmatch(rf"[A-Z0-9 _]{{1,{_CODE}}}", v)]
    return ["DERIVED", examination, "AXIAL", *more]


def coded(code: Code) -> Sequence:
    """Return a sequence of one code."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    item.CodeMeaning = code.meaning
    return Sequence([item])


def source_reference(sop_class: UID, sop_instance: UID, frame: int | None) -> Dataset:
    """Return an item of SourceImageSequence.

    Args:
        sop_class: Of the source's file.
        sop_instance: Of the source's file.
        frame: The frame, from 0; None for a slice in a file of its own.
    """
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    item.PurposeOfReferenceCodeSequence = coded(SOURCE_IMAGE)
    item.SpatialLocationsPreserved = "YES"
    return item


def equipment(name: str, version: str, run_hash: str, what: str) -> Dataset:
    """Return an item of ContributingEquipmentSequence."""
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = plain(name, _LONG_STRING)
    item.SoftwareVersions = [plain(version, _LONG_STRING), plain(run_hash, _LONG_STRING)]
    item.ContributionDescription = plain(what, _SHORT_TEXT)
    item.PurposeOfReferenceCodeSequence = coded(PROCESSING)
    return item


def description(purpose: str, name: str, run_hash: str, clipped: int) -> str:
    """Return a DerivationDescription."""
    what = plain(purpose, 400).rstrip(".")
    said = f"{what}. Model: {plain(name, 200)}. Run: {plain(run_hash, 128)}."
    if clipped:
        said += f" {clipped} pixels beyond 16 bits were set to the nearest value."
    return said[:_SHORT_TEXT]


def longer(series: str, suffix: str) -> str:
    """Return a SeriesDescription with a suffix, cut where it would be too long."""
    head = series[: _LONG_STRING - len(suffix) - 1].strip()
    return f"{head} {suffix}" if head else suffix


def say_lossy(header: Dataset, source: Dataset, stream: bytes, length: int) -> None:
    """Mark a header as that of an image that a lossy compression has changed, if one has.

    Args:
        header: To be changed.
        source: The header of the source's file.
        stream: The beginning of its pixel data, as they are in the file.
        length: How many bytes its pixel data are.
    """

    def head() -> bytes:
        return _ELEMENT_HEAD + stream[:HEAD_BYTES]

    if not is_lossy(source, head):
        return
    header.LossyImageCompression = "01"
    by_this_file = Dataset()
    by_this_file.file_meta = source.file_meta
    if text(source, "LossyImageCompressionRatio") or not is_lossy(by_this_file, head):
        return
    frames = int(source.get("NumberOfFrames") or 1)
    whole = int(source.Rows) * int(source.Columns) * int(source.BitsAllocated) / 8 * frames
    header.LossyImageCompressionRatio = f"{max(whole / max(length, 1), 1.0):.2f}"
    syntax = str(source.file_meta.TransferSyntaxUID)
    header.LossyImageCompressionMethod = next(
        (method for start, method in _METHODS.items() if syntax.startswith(start)), "ISO_10918_1"
    )

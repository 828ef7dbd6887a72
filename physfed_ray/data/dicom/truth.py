"""Whether an image is what the scanner reconstructed: neither derived, nor lossy, nor raw."""

from collections.abc import Callable
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.uid import UID

from physfed_ray.data.dicom.codestream import HEAD_BYTES, loses
from physfed_ray.data.dicom.reasons import (
    DERIVED,
    DERIVED_LET_IN,
    FOR_PROCESSING,
    LOSSY,
    LOSSY_LET_IN,
    LeftOut,
)

TRUTH_TAGS = (
    "ImageType", "LossyImageCompression", "LossyImageCompressionMethod",
    "LossyImageCompressionRatio", "PresentationIntentType",
)  # fmt: skip
"""What ``refuse_untrue`` reads of a header."""

_EITHER_SYNTAXES = {
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.93",  # JPEG 2000, several components
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.4.203",  # High-throughput JPEG 2000
}
_LOSSLESS_SYNTAXES = {
    "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.92",  # JPEG 2000
    "1.2.840.10008.1.2.4.110",  # JPEG XL
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202",  # High-throughput JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.1.98",  # encapsulated uncompressed
    "1.2.840.10008.1.2.8.1",  # deflated frames
}  # fmt: skip


def refuse_untrue(
    file: BinaryIO, dataset: Dataset, *, lossy: bool, derived: bool
) -> tuple[str, ...]:
    """Leave out what is no ground truth, and return notes on what is let in.

    Args:
        file: At the pixel data's element, where it is left.
        dataset: The header, with ``TRUTH_TAGS``.
        lossy: Let in what a compression has changed.
        derived: Let in what was computed from other images.

    Raises:
        LeftOut: The image is derived, lossy or for processing.
    """
    notes = []
    if str(dataset.get("PresentationIntentType") or "").strip().upper() == "FOR PROCESSING":
        raise LeftOut(FOR_PROCESSING)
    if is_derived(dataset):
        if not derived:
            raise LeftOut(DERIVED)
        notes.append(DERIVED_LET_IN)
    if _is_lossy(file, dataset):
        if not lossy:
            raise LeftOut(LOSSY)
        notes.append(LOSSY_LET_IN)
    return tuple(notes)


def is_derived(dataset: Dataset) -> bool:
    """Return whether ImageType says that an image was computed from others (PS3.3 C.7.6.1.1.2)."""
    kind = image_type(dataset)
    return "DERIVED" in kind[:1] or "SECONDARY" in kind[1:2]


def image_type(dataset: Dataset) -> list[str]:
    """Return the values of ImageType in capitals, without the blanks that pad them."""
    value = dataset.get("ImageType") or []
    values = [value] if isinstance(value, str) else list(value)
    return [str(value).strip(" \0\t\r\n").upper() for value in values]


def _is_lossy(file: BinaryIO, dataset: Dataset) -> bool:
    def head() -> bytes:
        start = file.tell()
        read = file.read(HEAD_BYTES)
        file.seek(start)
        return read

    return is_lossy(dataset, head)


def is_lossy(dataset: Dataset, head: Callable[[], bytes]) -> bool:
    """Return whether a compression has changed the image, by its header or its pixel data.

    Args:
        dataset: The header.
        head: Returns the beginning of the pixel data's element; called where it may say something.
    """
    said = str(dataset.get("LossyImageCompression") or "").strip()
    if said not in ("", "0", "00", "NO"):
        return True
    if _lost_before(dataset):
        return True
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if not syntax.is_compressed or syntax.is_deflated:
        return False
    streamed = loses(_first_stream(head()))
    if streamed is not None:
        return streamed
    if syntax in _EITHER_SYNTAXES:
        return said == ""
    return syntax not in _LOSSLESS_SYNTAXES


def _lost_before(dataset: Dataset) -> bool:
    """Return whether the ratio or the method of an earlier compression tells of a loss."""
    if dataset.get("LossyImageCompressionMethod"):
        return True
    ratios = dataset.get("LossyImageCompressionRatio") or []
    try:
        values = [float(r) for r in ([ratios] if isinstance(ratios, (str, float)) else ratios)]
    except (TypeError, ValueError):
        return True
    return any(ratio > 1 for ratio in values)


def _first_stream(head: bytes) -> bytes:
    """Return the first fragment after the table of offsets, as far as it was read.

    Args:
        head: From the pixel data's element on: 12 bytes of it, the table's item, the fragments.
    """
    table = int.from_bytes(head[16:20], "little")
    return head[20 + table + 8 :]

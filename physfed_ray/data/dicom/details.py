"""What pairing asks of a slice's header beyond what sorting needs: geometry, kernel, scanner."""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from physfed_ray.data.dicom.files import open_dicom, quiet_pydicom
from physfed_ray.data.dicom.frames import GROUPS, frame_header, has_frames
from physfed_ray.data.dicom.headers import SliceHeader
from physfed_ray.data.dicom.tags import number, numbers

_TAGS = [
    "SOPClassUID", "SeriesDescription", "ImageType", "ConvolutionKernel", "SliceThickness",
    "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "DistanceSourceToPatient",
    "DistanceSourceToDetector", "SpecificCharacterSet", "Modality", "NumberOfFrames",
]  # fmt: skip


@dataclass(frozen=True)
class Details:
    """What pairing asks of a slice beyond its ``SliceHeader``.

    Attributes:
        description: SeriesDescription.
        kind: ImageType, as text.
        kernel: ConvolutionKernel, as text; empty where it is not said.
        shape: Rows and columns.
        thickness_mm: SliceThickness, or nothing.
        orientation: Six cosines, or none.
        corner_mm: Position of the first pixel, or nothing.
        source_mm: From the source to the middle of the scanner; None where it is not said.
        to_detector_mm: From the source to the detector, likewise.
    """

    description: str = ""
    kind: str = ""
    kernel: str = ""
    shape: tuple[int, int] = (0, 0)
    thickness_mm: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    corner_mm: tuple[float, ...] = ()
    source_mm: float | None = None
    to_detector_mm: float | None = None


def read_details(header: SliceHeader) -> Details:
    """Read the details of a slice; what cannot be read counts as not said."""
    try:
        with quiet_pydicom(), header.path.open("rb") as file:
            dataset = open_dicom(file, [*_TAGS, *GROUPS])
            if header.frame_index is not None and has_frames(dataset):
                dataset = frame_header(dataset, header.frame_index)
            return Details(
                description=str(dataset.get("SeriesDescription") or ""),
                kind=_text(dataset, "ImageType"),
                kernel=_text(dataset, "ConvolutionKernel"),
                shape=(int(dataset.Rows), int(dataset.Columns)),
                thickness_mm=tuple(numbers(dataset, "SliceThickness")),
                orientation=tuple(numbers(dataset, "ImageOrientationPatient")),
                corner_mm=tuple(numbers(dataset, "ImagePositionPatient")),
                source_mm=number(dataset, "DistanceSourceToPatient"),
                to_detector_mm=number(dataset, "DistanceSourceToDetector"),
            )
    # pydicom raises whatever its parsing of broken values runs into.
    except Exception:
        return Details()


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return str(value or "") if isinstance(value, str | None) else " ".join(map(str, value))

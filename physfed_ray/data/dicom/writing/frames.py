"""One frame of a multi-frame CT file as the classic CT image that a scanner would have written.

``frames.frame_header`` writes out what sorting and reading need. A file also says how the frame was
taken and how it is to be shown, and a classic CT image has a place for that as well.
"""

from pydicom.dataset import Dataset

from physfed_ray.data.dicom.frames import GROUPS, frame_header, groups_of, write_out
from physfed_ray.data.dicom.tags import number

_MACROS = (
    "CTExposureSequence", "CTAcquisitionDetailsSequence", "CTTableDynamicsSequence",
    "FrameVOILUTSequence", "FrameAnatomySequence", "IrradiationEventIdentificationSequence",
)  # fmt: skip
_WHOLE_NUMBERS = {
    "ExposureTimeInms": "ExposureTime",
    "XRayTubeCurrentInmA": "XRayTubeCurrent",
    "ExposureInmAs": "Exposure",
}
"""What frames give as fractions, and classic images as whole numbers, in the same unit."""
_OF_MULTI_FRAME = (
    *GROUPS, "NumberOfFrames", "DimensionOrganizationSequence", "DimensionIndexSequence",
    "DimensionOrganizationType", "ConcatenationUID", "InConcatenationNumber",
    "InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber", "RepresentativeFrameNumber",
    "SOPInstanceUIDOfConcatenationSource", "FrameIncrementPointer", "StereoPairsPresent",
    "FrameType", "FrameAcquisitionNumber", "FrameAcquisitionDateTime", "FrameReferenceDateTime",
    "FrameAcquisitionDuration", "FrameComments", "FrameLabel", "FrameLaterality", "StackID",
    "InStackPositionNumber", "TemporalPositionIndex", "DimensionIndexValues", "PixelPresentation",
    "VolumetricProperties", "VolumeBasedCalculationTechnique", "ContentQualification",
    "ConversionSourceAttributesSequence", "ExposureTimeInms", "XRayTubeCurrentInmA",
    "ExposureInmAs", "AcquisitionType", "PresentationLUTShape", "AcquisitionContextSequence",
)  # fmt: skip
"""What only a file with several frames can say, or says in other words than a classic image."""
_TYPE_2 = (
    "KVP", "AcquisitionNumber", "SliceThickness", "SeriesNumber", "PositionReferenceIndicator",
    "Manufacturer",
)  # fmt: skip
"""What a classic CT image must have, if without a value, and a multi-frame one need not."""


def classic_header(dataset: Dataset, index: int) -> Dataset:
    """Return the header of one frame as that of a classic CT image, still without its kind.

    Args:
        dataset: The header of the file.
        index: The frame, from 0.
    """
    flat = frame_header(dataset, index)
    for group in groups_of(dataset, index):
        for name in _MACROS:
            write_out(group, name, flat)
    for name, classic in _WHOLE_NUMBERS.items():
        value = number(flat, name)
        if value is not None:
            setattr(flat, classic, round(value))
    for name in _OF_MULTI_FRAME:
        flat.pop(name, None)
    for name in _TYPE_2:
        if name not in flat:
            setattr(flat, name, None)
    if not flat.get("InstanceNumber"):
        flat.InstanceNumber = index + 1
    return flat

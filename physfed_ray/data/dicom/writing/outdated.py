"""What a header says of the source's pixels, file or making that is not true of a derived image."""

from pydicom.dataset import Dataset

_OUTDATED = (
    # The source's own file, and where it was kept.
    "LengthToEnd", "InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID",
    "InstanceCoercionDateTime", "RetrieveAETitle", "RetrieveURL", "RetrieveURI",
    "InstanceAvailability", "StorageMediaFileSetID", "StorageMediaFileSetUID",
    "AlternateRepresentationSequence", "NumberOfFrames",
    # Nobody has authorised, signed or encrypted the new one.
    "SOPInstanceStatus", "SOPAuthorizationDateTime", "SOPAuthorizationComment",
    "AuthorizationEquipmentCertificationNumber", "MACParametersSequence",
    "DigitalSignaturesSequence",
    # Its pixels.
    "IconImageSequence", "PixelDataProviderURL", "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries", "SmallestImagePixelValueInPlane", "LargestImagePixelValueInPlane",
    "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RealWorldValueMappingSequence", "HistogramSequence",
    # Tables that were made for its values. The scale and the window are in HU and hold.
    "ModalityLUTSequence", "VOILUTSequence", "PresentationLUTSequence",
)  # fmt: skip
_OVERLAYS = range(0x6000, 0x6020, 2)
_OVERLAY_DATA, _MEAN, _DEVIATION = 0x3000, 0x1302, 0x1303


def drop_outdated(header: Dataset) -> None:
    """Remove what no longer holds; an overlay stays if it has a plane of its own.

    Overlays in unused bits of the pixels go with these, and so does what was measured inside one.
    """
    for name in _OUTDATED:
        header.pop(name, None)
    for tag in list(header.keys()):
        if tag.group in _OVERLAYS:
            plane = (tag.group, _OVERLAY_DATA) in header
            if not plane or tag.element in (_MEAN, _DEVIATION):
                del header[tag]

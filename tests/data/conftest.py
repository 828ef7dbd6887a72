"""Synthetic DICOM files: one good CT slice, and a way to spoil it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    generate_uid,
)

NATIVE = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}
WriteCT = Callable[..., Path]


def _header(shape: tuple[int, int], patient: str, series: str, z_mm: float) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientID = patient
    dataset.PatientName = "Secret^Person"
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[patient])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[patient, series])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[patient, "frame"])
    dataset.StudyDate = "20200101"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.ImagePositionPatient = [0, 0, z_mm]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.75, 0.5]
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    return dataset


def compress(dataset: Dataset, syntax: UID, path: Path) -> None:
    """Compress a data set in place; GDCM does it by way of a file."""
    if syntax not in (JPEGLosslessSV1, JPEG2000Lossless):
        dataset.compress(syntax, generate_instance_uid=False)
        return
    import gdcm

    codes = {
        JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    }
    dataset.save_as(path, enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(codes[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    dataset.PixelData = pydicom.dcmread(path).PixelData
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


@pytest.fixture
def write_ct() -> WriteCT:
    """Return a function that writes a CT slice; keywords replace attributes, None removes them."""

    def write(
        path: Path,
        hu: np.ndarray | None = None,
        *,
        patient: str = "P1",
        series: str = "1",
        z_mm: float = 0.0,
        syntax: UID = ExplicitVRLittleEndian,
        signed: bool = False,
        **attributes: Any,
    ) -> Path:
        hu = np.zeros((20, 28), np.float32) if hu is None else hu
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = _header(hu.shape, patient, series, z_mm)
        dataset.PixelRepresentation = int(signed)
        for keyword, value in attributes.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        slope = float(dataset.get("RescaleSlope", 1))
        intercept = float(dataset.get("RescaleIntercept", -1024))
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        stored = np.rint((hu - intercept) / slope).astype(f"{order}{'i' if signed else 'u'}2")
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
        dataset.file_meta.TransferSyntaxUID = syntax if syntax in NATIVE else ExplicitVRLittleEndian
        if syntax not in NATIVE:
            compress(dataset, syntax, path)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write

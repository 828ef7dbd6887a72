"""Tags that hold anything do not cost a slice that does not need them."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.dicom.tags import number, numbers, text, whole_number


def replace_value(path: Path, keyword: str, value: bytes) -> None:
    """Write a value over the one that is there, padded to its length."""
    element = pydicom.dcmread(path).get_item(keyword)
    content = bytearray(path.read_bytes())
    start, length = element.value_tell, element.length
    content[start : start + length] = value.ljust(length)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SeriesNumber", b"3A  "),
        ("SeriesNumber", b"abc "),
        ("InstanceNumber", b"12b "),
        ("InstanceNumber", b" 7  "),
        ("AcquisitionNumber", b"    "),
        ("AcquisitionNumber", b"1.5 "),
        ("SliceLocation", b"a.b "),
        ("SliceThickness", b"5 mm"),
        ("KVP", b"120k"),
    ],
)
def test_letters_in_numbers_that_break_ties_cost_nothing(
    tmp_path: Path, write_ct, keyword: str, value: bytes
):
    for index in range(3):
        path = write_ct(tmp_path / f"{index}", z_mm=index, **{keyword: 123456})
        replace_value(path, keyword, value)
    source = DicomSource(tmp_path)
    assert source.summary()["left_out"] == {}
    assert source.load("P1", None).positions_mm == (0, 1, 2)


def test_numbers_are_found_in_text_and_zero_is_one():
    dataset = Dataset()
    dataset.SeriesNumber = 0
    dataset.PatientID = " 12b\0"
    assert whole_number(dataset, "SeriesNumber") == 0
    assert number(dataset, "SeriesNumber") == 0
    assert whole_number(dataset, "PatientID") == 12
    assert number(dataset, "PatientID") is None
    assert text(dataset, "PatientID") == "12b"
    assert whole_number(dataset, "InstanceNumber") is None
    assert numbers(dataset, "PixelSpacing") == []


@pytest.mark.parametrize("said", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("written", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_header_may_lie_about_explicit_and_implicit(tmp_path: Path, write_ct, said, written):
    hu = np.arange(560, dtype=np.float32).reshape(20, 28)
    path = write_ct(tmp_path / "a", hu, syntax=written, PixelPaddingValue=24)
    content = path.read_bytes()
    dataset = pydicom.dcmread(path)
    end = len(content) - len(_dataset_bytes(dataset, written))
    meta = dataset.file_meta
    meta.TransferSyntaxUID = said
    with open(path, "wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        pydicom.filewriter.write_file_meta_info(file, meta)
        file.write(content[end:])
    assert DicomSource(tmp_path).summary()["left_out"] == {}
    got = DicomSource(tmp_path).load("P1", None).slices[0]
    np.testing.assert_array_equal(got, hu)


def _dataset_bytes(dataset: Dataset, syntax: pydicom.uid.UID) -> bytes:
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = syntax.is_implicit_VR
    pydicom.filewriter.write_dataset(buffer, dataset)
    return buffer.getvalue()

"""A header copied by its bytes, whatever its encoding."""

import struct

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from physfed_ray.data.dicom.writing.header import copy_header


def source(*, little: bool) -> Dataset:
    order = "<>"[not little]
    values = {
        0x00080008: (None, b"ORIGINAL\\PRIMARY"),
        0x00280010: ("US", struct.pack(f"{order}H", 512)),
        0x00189306: ("FD", struct.pack(f"{order}d", 0.625)),
        0x00201040: (None, b"odd"),
        0x00280106: (None, struct.pack(f"{order}h", -5)),
        0x00080018: ("??", b"1.2.3"),
        0x7FE00010: ("OW", b"\0\0"),
        0xFFFAFFFA: ("SQ", b""),
        0x00080000: ("UL", b"\0\0\0\0"),
        0x00091001: ("LO", b"private "),
    }
    dataset = Dataset()
    dataset.set_original_encoding(False, little, "iso8859")
    for tag, (vr, value) in values.items():
        dataset[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, vr is None, little)
    dataset.PixelRepresentation = 1
    return dataset


@pytest.mark.parametrize("little", [True, False])
def test_values_keep_their_bytes_in_the_new_order(little: bool):
    copy = copy_header(source(little=little))
    assert sorted(map(int, copy.keys())) == [
        0x00080008, 0x00080018, 0x00189306, 0x00201040, 0x00280010, 0x00280103, 0x00280106,
    ]  # fmt: skip
    assert copy.get_item(0x00201040).value == b"odd "
    assert (copy.get_item(0x00280106).VR, copy.get_item(0x00080018).VR) == ("SS", "UI")
    assert (copy.Rows, copy[0x00189306].value) == (512, 0.625)
    assert (copy.SmallestImagePixelValue, copy.SOPInstanceUID) == (-5, "1.2.3")


def test_a_copy_shares_nothing_with_its_source():
    dataset, item = Dataset(), Dataset()
    item.CodeMeaning = "before"
    dataset.RequestAttributesSequence = [item]
    dataset.ImagePositionPatient = [0, 0, 0]
    copy = copy_header(dataset)
    copy.RequestAttributesSequence[0].CodeMeaning = "after"
    copy.ImagePositionPatient[2] = 5
    assert item.CodeMeaning == "before"
    assert dataset.ImagePositionPatient == [0, 0, 0]

"""A UID used twice: a copy only if the image is the same."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import JPEGLSLossless

from physfed_ray.data.dicom.source import DicomSource


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 3000, (20, 28)).astype(np.float32)


def test_one_uid_for_all_slices_costs_none(tmp_path: Path, write_ct):
    for z_mm in range(4):
        write_ct(tmp_path / f"{z_mm}", image(z_mm), z_mm=z_mm, SOPInstanceUID="1.2.3")
    source = DicomSource(tmp_path)
    assert source.load("P1", None).positions_mm == (0, 1, 2, 3)
    assert source.summary()["left_out"] == {}


def test_one_uid_for_all_patients_costs_none(tmp_path: Path, write_ct):
    for patient in ("A", "B"):
        write_ct(tmp_path / patient, patient=patient, SOPInstanceUID="1.2.3")
    assert DicomSource(tmp_path).ids() == ("A", "B")


def test_a_copy_in_another_encoding_is_a_duplicate(tmp_path: Path, write_ct):
    write_ct(tmp_path / "a", image(1), SOPInstanceUID="1.2.3")
    write_ct(tmp_path / "b", image(1), SOPInstanceUID="1.2.3", syntax=JPEGLSLossless)
    assert DicomSource(tmp_path).summary()["left_out"] == {"duplicate slice": 1}


def test_other_pixels_under_one_uid_are_named(tmp_path: Path, write_ct):
    write_ct(tmp_path / "a", image(1), SOPInstanceUID="1.2.3")
    write_ct(tmp_path / "b", image(2), SOPInstanceUID="1.2.3")
    first = DicomSource(tmp_path)
    assert first.summary()["left_out"] == {"another image under one UID": 1}
    kept = first.load("P1", None).slices[0]
    (tmp_path / "a").rename(tmp_path / "z")
    np.testing.assert_array_equal(DicomSource(tmp_path).load("P1", None).slices[0], kept)


def test_a_scan_filed_under_two_patients_is_used_once(tmp_path: Path, write_ct):
    for z_mm in range(3):
        path = write_ct(tmp_path / f"a{z_mm}", image(z_mm), z_mm=z_mm, patient="A")
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "B"
        dataset.save_as(tmp_path / f"b{z_mm}")
    source = DicomSource(tmp_path)
    assert source.ids() == ("A",)
    assert source.summary()["left_out"] == {"image of another patient too": 3}

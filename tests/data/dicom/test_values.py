"""Files whose values lie, read through the source: one bad slice costs one slice, by name."""

import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from physfed_ray.data.dicom import reasons
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.patient import NoSliceError

SIZE = 48


def body(seed: int = 0) -> np.ndarray:
    """Return (48, 48) whole HU: noisy air around a noisy disk of tissue."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    hu = np.where(x**2 + y**2 < 15**2, 30, -990)
    noisy = hu + np.random.default_rng(seed).normal(0, 9, hu.shape)
    return np.rint(np.maximum(noisy, -1020)).astype(np.float32)


def rewrite(path: Path, **attributes: object) -> pydicom.Dataset:
    """Change a file's header, its pixels untouched."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return dataset


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"RescaleSlope": 0}, reasons.BAD_SCALE),
        ({"RescaleSlope": -1}, reasons.BAD_SCALE),
        ({"RescaleSlope": "inf"}, reasons.BAD_SCALE),
        ({"RescaleSlope": "nan"}, reasons.BAD_SCALE),
        ({"RescaleIntercept": "nan"}, reasons.BAD_SCALE),
        ({"RescaleIntercept": "0"}, reasons.AIR_ELSEWHERE),
        ({"HighBit": 11}, reasons.HIGH_BIT),
        ({"BitsStored": 8, "HighBit": 7}, reasons.EIGHT_BITS),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, reasons.COLOUR),
        ({"PresentationIntentType": "FOR PROCESSING"}, reasons.FOR_PROCESSING),
        ({"PresentationIntentType": "for processing "}, reasons.FOR_PROCESSING),
        ({"LossyImageCompression": "01"}, reasons.LOSSY),
        ({"LossyImageCompression": "01 "}, reasons.LOSSY),
        ({"LossyImageCompression": "1"}, reasons.LOSSY),
        ({"LossyImageCompressionMethod": "ISO_10918_1"}, reasons.LOSSY),
        ({"LossyImageCompressionRatio": "12.5"}, reasons.LOSSY),
        ({"LossyImageCompressionRatio": ["1", "7"]}, reasons.LOSSY),
        ({"ImageType": ["DERIVED ", "PRIMARY", "AXIAL"]}, reasons.DERIVED),
        ({"ImageType": "DERIVED "}, reasons.DERIVED),
        ({"ImageType": ["derived", "primary", "axial"]}, reasons.DERIVED),
        ({"ImageType": [" Derived", "PRIMARY", "AXIAL"]}, reasons.DERIVED),
        ({"ImageType": ["ORIGINAL", "SECONDARY ", "AXIAL"]}, reasons.DERIVED),
    ],
)
def test_a_header_that_cannot_be_trusted_is_left_out_before_any_pixel_is_read(
    tmp_path: Path, write_ct, attributes, reason: str
):
    write_ct(tmp_path / "good", body(), z_mm=1)
    write_ct(tmp_path / "bad", body())
    rewrite(tmp_path / "bad", **attributes)
    source = DicomSource(tmp_path)
    assert source.summary()["left_out"] == {reason: 1}
    np.testing.assert_array_equal(source.load("P1", None).slices[0], body())


@pytest.mark.parametrize(
    "attributes",
    [
        {"LossyImageCompression": "00"},
        {"LossyImageCompression": "", "LossyImageCompressionRatio": "1"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationIntentType": "FOR PRESENTATION"},
        {"ImageType": ["original ", "primary", "axial "]},
    ],
)
def test_headers_that_only_look_odd_are_read(tmp_path: Path, write_ct, attributes):
    rewrite(write_ct(tmp_path / "a", body()), **attributes)
    source = DicomSource(tmp_path)
    np.testing.assert_array_equal(source.load("P1", None).slices[0], body())
    assert (source.summary()["left_out"], source.summary()["notes"]) == ({}, {})


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_fewer_bits_than_allocated_are_exact_in_every_encoding(
    tmp_path: Path, write_ct, syntax, signed: bool
):
    scale = {"RescaleIntercept": 0} if signed else {}
    attributes = scale | {"BitsStored": 12, "HighBit": 11}
    write_ct(tmp_path / "a", body(), syntax=syntax, signed=signed, **attributes)
    np.testing.assert_array_equal(DicomSource(tmp_path).load("P1", None).slices[0], body())


def test_derived_and_lossy_images_come_in_by_a_key_and_are_noted(tmp_path: Path, write_ct):
    write_ct(tmp_path / "a", body(1), z_mm=1, ImageType=["DERIVED", "SECONDARY", "AVERAGE"])
    write_ct(tmp_path / "b", body(2), z_mm=2, LossyImageCompression="01")
    write_ct(tmp_path / "c", body(3), z_mm=3)
    capture = "1.2.840.10008.5.1.4.1.1.7"
    write_ct(tmp_path / "d", z_mm=4, SOPClassUID=capture, ImageType=["DERIVED", "SECONDARY"])
    write_ct(tmp_path / "e", z_mm=5, ImageType=["DERIVED", "SECONDARY"], RescaleSlope=None)
    source = DicomSource(tmp_path, lossy=True, derived=True)
    assert source.load("P1", None).positions_mm == (1, 2, 3)
    summary = source.summary()
    assert summary["left_out"] == {reasons.NO_HU: 1, "secondary capture": 1}
    assert summary["notes"] == {reasons.DERIVED_LET_IN: 1, reasons.LOSSY_LET_IN: 1}


@pytest.mark.parametrize("said", [None, "00"])
@pytest.mark.parametrize("loses", [True, False])
def test_a_syntax_that_allows_both_is_told_by_its_stream(
    tmp_path: Path, write_ct, said: str | None, loses: bool
):
    write_ct(tmp_path / "good", body(), z_mm=1)
    dataset = pydicom.dcmread(write_ct(tmp_path / "a", body(1)))
    ratio = {"compression_ratios": [6]} if loses else {}
    dataset.PixelData = encapsulate([bytes(encode_array(dataset.pixel_array, **ratio))])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    if said is not None:
        dataset.LossyImageCompression = said
    dataset.save_as(tmp_path / "a")
    source = DicomSource(tmp_path)
    assert source.summary()["left_out"] == ({reasons.LOSSY: 1} if loses else {})
    if not loses:
        np.testing.assert_array_equal(source.load("P1", None).slices[0], body(1))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSNearLossless])
def test_a_lossy_syntax_is_told_where_the_stream_says_nothing(tmp_path: Path, write_ct, syntax):
    write_ct(tmp_path / "good", body(), z_mm=1)
    dataset = pydicom.dcmread(write_ct(tmp_path / "a", body(1)))
    dataset.PixelData = encapsulate([b"no stream at all"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "a")
    assert DicomSource(tmp_path).summary()["left_out"] == {reasons.LOSSY: 1}


def test_one_bad_slice_costs_one_slice(tmp_path: Path, write_ct, caplog):
    caplog.set_level(logging.WARNING)
    for z_mm in range(4):
        write_ct(tmp_path / f"{z_mm}", body(z_mm), z_mm=z_mm, signed=True, RescaleIntercept=0)
    lost = np.maximum(body(1) + 1024, 0)
    write_ct(tmp_path / "1", lost, z_mm=1, signed=True, RescaleIntercept=0)
    source = DicomSource(tmp_path)
    volume = source.load("P1", None)
    assert volume.positions_mm == (0, 2, 3)
    assert volume.findings.left_out == {reasons.AIR_ELSEWHERE: 1}
    assert source.summary()["left_out"] == {reasons.AIR_ELSEWHERE: 1}
    assert reasons.AIR_ELSEWHERE in caplog.text


def test_a_patient_of_whom_nothing_is_left_is_named_with_the_reason(tmp_path: Path, write_ct):
    for z_mm in range(2):
        hu = np.maximum(body(z_mm) + 1024, 0)
        write_ct(tmp_path / f"{z_mm}", hu, z_mm=z_mm, signed=True, RescaleIntercept=0)
    with pytest.raises(NoSliceError, match=f"2 {reasons.AIR_ELSEWHERE}") as error:
        DicomSource(tmp_path).load("P1", None)
    assert error.value.reason == f"left out: 2 {reasons.AIR_ELSEWHERE}"


def test_padding_is_noted_by_slice(tmp_path: Path, write_ct):
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    outside = x**2 + y**2 > (SIZE / 2) ** 2
    untagged = np.where(outside, 62_512, body(0))
    write_ct(tmp_path / "0", untagged, z_mm=0)
    write_ct(tmp_path / "1", body(1), z_mm=1, PixelPaddingValue=1024 + 30)
    write_ct(tmp_path / "2", body(2), z_mm=2, PixelPaddingValue=0)
    source = DicomSource(tmp_path)
    volume = source.load("P1", None)
    assert volume.findings.notes == {reasons.PADDING_UNTAGGED: 1, reasons.PADDING_IN_TISSUE: 1}
    assert source.summary()["notes"] == volume.findings.notes
    np.testing.assert_array_equal(volume.slices[0], np.where(outside, -1000, body(0)))
    np.testing.assert_array_equal(volume.slices[1], body(1))


@pytest.mark.parametrize("tag", ["PixelPaddingValue", "PixelPaddingRangeLimit"])
def test_a_padding_tag_without_meaning_does_no_harm(tmp_path: Path, write_ct, tag: str):
    dataset = pydicom.dcmread(write_ct(tmp_path / "a", body()))
    dataset.add_new("PixelPaddingValue", "US", 0)
    dataset.add_new(tag, "US", [1, 2])
    dataset.save_as(tmp_path / "a")
    np.testing.assert_array_equal(DicomSource(tmp_path).load("P1", None).slices[0], body())


def test_real_slices_are_what_their_headers_say(real_ct: Path):
    plain = set()
    for path in real_ct.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        plain.add(np.where(hu < -1024, -1000, hu).astype(np.float32).tobytes())
    source = DicomSource(real_ct)
    for patient in source.ids():
        volume = source.load(patient, None)
        assert all(hu.tobytes() in plain for hu in volume.slices)
        assert (volume.findings.left_out, volume.findings.notes) == ({}, {})

"""Reading DICOM: exact HU from every encoding, and nothing that stops half way."""

import json
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import AIR_HU
from physfed_ray.errors import PhysFedError

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
]

INDEXED = {"StudyTime": "1200", "StudyID": "1", "AccessionNumber": ""}
"""What a DICOMDIR asks of its files."""


def spoil(path: Path) -> None:
    """Replace compressed pixel data by noise, in a file that is otherwise whole."""
    dataset = pydicom.dcmread(path)
    noise = np.random.default_rng(0).integers(0, 256, 500, np.uint8).tobytes()
    dataset.PixelData = encapsulate([noise])
    dataset.save_as(path)


def image(seed: int = 0, shape: tuple[int, int] = (20, 28)) -> np.ndarray:
    """Return whole HU between -1000 and 3000 that no transposition or flip leaves as they are."""
    return np.random.default_rng(seed).integers(-1000, 3000, shape).astype(np.float32)


def left_out(root: Path, **arguments) -> dict[str, int]:
    return DicomSource(root, **arguments).summary()["left_out"]


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_encoding_gives_the_exact_hu(tmp_path: Path, write_ct, syntax, signed: bool):
    attributes = {"RescaleIntercept": 0} if signed else {}
    write_ct(tmp_path / "a", image(), syntax=syntax, signed=signed, **attributes)
    assert pydicom.dcmread(tmp_path / "a").file_meta.TransferSyntaxUID == syntax
    volume = DicomSource(tmp_path).load("P1", None)
    np.testing.assert_array_equal(volume.slices[0], image())
    assert volume.slices[0].dtype == np.float32
    assert volume.spacings_mm == ((0.75, 0.5),)


def test_slope_and_intercept_are_applied(tmp_path: Path, write_ct):
    hu = 2.5 * np.arange(560, dtype=np.float32).reshape(20, 28) - 512
    write_ct(tmp_path / "a", hu, RescaleSlope=2.5, RescaleIntercept=-512)
    np.testing.assert_array_equal(DicomSource(tmp_path).load("P1", None).slices[0], hu)


def test_files_of_any_name_in_any_folder_are_ordered_by_position(tmp_path: Path, write_ct):
    names = ["b/x.dcm", "a/deep/er/IM0001", "c.txt", ".hidden", "b/IMG 3.png"]
    for index, (name, z_mm) in enumerate(zip(names, [30, -10, 20.5, 0, 10], strict=True)):
        write_ct(tmp_path / name, image(index), z_mm=z_mm, InstanceNumber=9 - index)
    volume = DicomSource(tmp_path).load("P1", None)
    assert volume.positions_mm == (-10, 0, 10, 20.5, 30)
    for got, seed in zip(volume.slices, [1, 3, 4, 2, 0], strict=True):
        np.testing.assert_array_equal(got, image(seed))


def test_a_tilted_gantry_is_ordered_along_its_normal(tmp_path: Path, write_ct):
    tilt = np.deg2rad(20)
    down = [0, float(np.cos(tilt)), float(np.sin(tilt))]
    normal = np.cross([1, 0, 0], down)
    # In-plane shifts turn the order of z around; along the normal it stays.
    for index, shift in enumerate([0.0, -90.0, 30.0]):
        corner = 5.0 * index * normal + shift * np.array(down)
        write_ct(
            tmp_path / f"{index}",
            image(index),
            ImagePositionPatient=[float(round(value, 6)) for value in corner],
            ImageOrientationPatient=[1, 0, 0, *down],
        )
    volume = DicomSource(tmp_path).load("P1", None)
    assert volume.positions_mm == pytest.approx((0, 5, 10), abs=1e-4)
    np.testing.assert_array_equal(volume.slices[1], image(1))


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_padding_becomes_air(tmp_path: Path, write_ct, signed: bool):
    hu = image()
    hu[0], hu[1] = 3071, -3024
    stored = 3071 - (0 if signed else -4096)
    write_ct(
        tmp_path / "a",
        hu,
        signed=signed,
        RescaleIntercept=0 if signed else -4096,
        PixelPaddingValue=stored,
    )
    got = DicomSource(tmp_path).load("P1", None).slices[0]
    assert (got[:2] == AIR_HU).all()
    np.testing.assert_array_equal(got[2:], hu[2:])


def test_a_padding_range_and_a_wrapped_padding_value_become_air(tmp_path: Path, write_ct):
    hu = image()
    hu[0], hu[1] = -1012, -1020
    write_ct(
        tmp_path / "a", hu, z_mm=0, PixelPaddingValue=4, PixelPaddingRangeLimit=12, patient="range"
    )
    signed = write_ct(
        tmp_path / "b",
        hu,
        signed=True,
        patient="wrapped",
        RescaleIntercept=-4,
        PixelPaddingValue=-1016,
    )
    content = signed.read_bytes()
    assert content.count(b"\x28\x00\x20\x01SS") == 1
    # Now the header gives the number with the same bits, 64520.
    signed.write_bytes(content.replace(b"\x28\x00\x20\x01SS", b"\x28\x00\x20\x01US"))
    source = DicomSource(tmp_path)
    assert (source.load("range", None).slices[0][:2] == AIR_HU).all()
    got = source.load("wrapped", None).slices[0]
    assert (got[1] == AIR_HU).all()
    np.testing.assert_array_equal(got[2:], hu[2:])


def test_what_is_no_original_axial_ct_is_named_by_its_reason(tmp_path: Path, write_ct):
    def write(name: str, **attributes) -> None:
        write_ct(tmp_path / name, z_mm=len(list(tmp_path.iterdir())), **attributes)

    write("good")
    write("scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write("dose1", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    write("dose2", SeriesDescription="Dose Report", SOPClassUID=SecondaryCaptureImageStorage)
    write("protocol", ImageType=["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"])
    write("capture", SOPClassUID=SecondaryCaptureImageStorage, Modality="OT")
    write("mip", ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
    write("mr", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    write("sr", Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67")
    write("odd", Modality="SECRET PERSON", SOPClassUID="1.2.3")
    write("coronal", ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    write("enhanced", SOPClassUID=EnhancedCTImageStorage)
    write("no spacing", PixelSpacing=None)
    write("no scale", RescaleSlope=None, RescaleIntercept=None)
    write("density", RescaleType="MGML")
    write("lost", ImagePositionPatient=None, InstanceNumber=None)
    (tmp_path / "notes.txt").write_text("not an image, but long enough to be one" * 20)
    (tmp_path / "empty").touch()
    (tmp_path / "video").symlink_to("nowhere")
    assert left_out(tmp_path) == {
        "localizer": 1,
        "dose screen": 3,
        "secondary capture": 1,
        "derived image": 1,
        "other modality (MR)": 1,
        "other modality (SR)": 1,
        "other modality (unknown)": 1,
        "not axial": 1,
        "multi-frame image": 1,
        "no pixel spacing": 1,
        "no Hounsfield scale": 2,
        "no position": 1,
        "not DICOM": 2,
        "unreadable": 1,
    }


def test_a_low_dose_chest_is_no_dose_screen(tmp_path: Path, write_ct):
    write_ct(tmp_path / "a", SeriesDescription="LOW DOSE CHEST", ProtocolName="Low dose")
    assert left_out(tmp_path) == {}


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_a_file_cut_anywhere_is_left_out_and_the_others_stay(tmp_path: Path, write_ct, syntax):
    write_ct(tmp_path / "whole", z_mm=-1)
    content = write_ct(tmp_path / "cut", image(), syntax=syntax).read_bytes()
    for part in (0.999, 0.9, 0.6, 0.35, 0.2):
        (tmp_path / "cut").write_bytes(content[: int(part * len(content))])
        source = DicomSource(tmp_path)
        assert source.slice_count("P1") == 1
        ((reason, paths),) = source.left_out_paths().items()
        assert paths == (tmp_path / "cut",)
        assert reason in ("truncated", "unreadable") if part < 0.5 else reason == "truncated"


def test_random_damage_never_stops_the_reading(tmp_path: Path, write_ct):
    rng = np.random.default_rng(5)
    write_ct(tmp_path / "whole", patient="whole")
    for index in range(60):
        syntax = SYNTAXES[index % 4]
        path = write_ct(tmp_path / f"{index}", image(), z_mm=index, syntax=syntax)
        content = bytearray(path.read_bytes())
        for place in rng.integers(132, len(content) - 1120, 12):
            content[place] = rng.integers(256)
        path.write_bytes(bytes(content))
    source = DicomSource(tmp_path)
    assert source.slice_count("whole") == 1
    counts = source.summary()
    assert sum(counts["left_out"].values()) + counts["slices"] == 61


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless, JPEG2000Lossless])
def test_pixels_that_do_not_decode_are_skipped_and_counted(tmp_path: Path, write_ct, syntax):
    for index in range(3):
        path = write_ct(tmp_path / f"{index}", image(index), z_mm=index, syntax=syntax)
    spoil(path)
    source = DicomSource(tmp_path)
    assert source.slice_count("P1") == 3
    volume = source.load("P1", None)
    assert volume.positions_mm == (0, 1)
    assert source.summary()["left_out"] == {"undecodable pixel data": 1}


def test_a_patient_of_whom_nothing_decodes_is_an_error(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "a", syntax=JPEGLSLossless)
    spoil(path)
    with pytest.raises(PhysFedError, match="No slice of a patient decodes"):
        DicomSource(tmp_path).load("P1", None)


def test_a_compression_without_decoder_is_named(tmp_path: Path, write_ct):
    write_ct(tmp_path / "good", z_mm=1)
    path = write_ct(tmp_path / "video", syntax=JPEGLSLossless)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.save_as(path)
    assert left_out(tmp_path) == {"unsupported compression": 1}


def test_duplicates_are_counted_and_kept_once(tmp_path: Path, write_ct):
    original = write_ct(tmp_path / "a", image(0), z_mm=0)
    (tmp_path / "copy").write_bytes(original.read_bytes())
    write_ct(tmp_path / "b", image(1), z_mm=5, AcquisitionNumber=2)
    write_ct(tmp_path / "c", image(2), z_mm=5, AcquisitionNumber=1)
    write_ct(tmp_path / "d", image(3), z_mm=5.5)
    source = DicomSource(tmp_path)
    volume = source.load("P1", None)
    assert source.summary()["left_out"] == {"duplicate slice": 2}
    assert volume.positions_mm == (0, 5, 5.5)
    np.testing.assert_array_equal(volume.slices[1], image(2))


def test_a_second_kernel_is_left_out_and_another_part_of_the_body_stays(tmp_path: Path, write_ct):
    for z_mm in range(0, 20, 2):
        write_ct(tmp_path / f"soft{z_mm}", image(1), series="soft", z_mm=z_mm)
    for z_mm in range(0, 20, 5):
        write_ct(tmp_path / f"lung{z_mm}", image(2), series="lung", z_mm=z_mm + 0.5)
    for z_mm in range(17, 47, 10):
        write_ct(tmp_path / f"neck{z_mm}", image(3), series="neck", z_mm=z_mm, SeriesNumber=3)
    source = DicomSource(tmp_path)
    assert source.summary()["left_out"] == {"repeated series": 4}
    assert source.load("P1", None).positions_mm == (*range(0, 20, 2), 17, 27, 37)


def test_series_of_two_years_both_contribute_in_order_of_time(tmp_path: Path, write_ct):
    for year, study in (("2011", "1.2.2"), ("2009", "1.2.1")):
        for z_mm in (0, 4):
            write_ct(
                tmp_path / f"{year}{z_mm}",
                image(int(year) + z_mm),
                z_mm=z_mm,
                series=year,
                StudyInstanceUID=study,
                StudyDate=f"{year}0101",
            )
    volume = DicomSource(tmp_path).load("P1", None)
    assert volume.positions_mm == (0, 4, 0, 4)
    np.testing.assert_array_equal(volume.slices[0], image(2009))


def test_patients_are_grouped_by_id_and_short_ones_left_out(tmp_path: Path, write_ct):
    for index, patient in enumerate(["B", "A", "B ", "C", "C", "B"]):
        write_ct(tmp_path / f"{index}", patient=patient.strip(), z_mm=index, PatientID=patient)
    source = DicomSource(tmp_path, min_slices=2)
    assert source.ids() == ("B", "C")
    assert [source.slice_count(patient) for patient in source.ids()] == [3, 2]
    assert source.summary()["left_out"] == {"too few slices": 1}


def test_patients_without_an_id_are_told_apart_by_study(tmp_path: Path, write_ct):
    for index in range(4):
        study = f"1.2.{index % 2}"
        write_ct(tmp_path / f"{index}", z_mm=index, PatientID="", StudyInstanceUID=study)
    assert DicomSource(tmp_path).ids() == ("study 1.2.0", "study 1.2.1")


def test_matrices_of_several_shapes_stay_as_they_are(tmp_path: Path, write_ct):
    shapes = [(20, 28), (31, 17)]
    for index, shape in enumerate(shapes):
        write_ct(tmp_path / f"{index}", image(index, shape), z_mm=index)
    volume = DicomSource(tmp_path).load("P1", None)
    assert [hu.shape for hu in volume.slices] == shapes


def test_a_dicomdir_is_followed_and_its_missing_files_counted(tmp_path: Path, write_ct):
    files = FileSet()
    for index in range(3):
        path = write_ct(
            tmp_path / "in" / f"{index}",
            z_mm=index,
            StudyTime="1200",
            StudyID="1",
            AccessionNumber="",
        )
        files.add(path)
    files.write(tmp_path / "cd")
    index = tmp_path / "cd" / "DICOMDIR"
    listed = sorted(path for path in (tmp_path / "cd").rglob("*") if path.is_file())
    next(path for path in listed if path != index).unlink()
    for root in (index, tmp_path / "cd"):
        summary = DicomSource(root).summary()
        assert summary["slices"] == 2
        assert summary["missing_from_dicomdir"] == 1
        assert summary["left_out"] == {"DICOMDIR index": 1}


def test_a_broken_dicomdir_does_no_harm(tmp_path: Path, write_ct):
    write_ct(tmp_path / "a")
    files = FileSet()
    files.add(write_ct(tmp_path / "b", z_mm=1, **INDEXED))
    files.write(tmp_path / "cd")
    index = tmp_path / "cd" / "DICOMDIR"
    index.write_bytes(index.read_bytes()[:-150])
    assert DicomSource(tmp_path).slice_count("P1") == 2


def test_a_file_without_preamble_is_read(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "a", image(), syntax=ImplicitVRLittleEndian)
    dataset = pydicom.dcmread(path)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.preamble = None
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(DicomSource(tmp_path).load("P1", None).slices[0], image())


def test_pipes_and_circular_links_do_not_hang(tmp_path: Path, write_ct):
    write_ct(tmp_path / "a" / "slice")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "pipe")
    assert DicomSource(tmp_path).summary()["files"] == 1


def test_a_limit_spreads_the_slices_over_the_patient(tmp_path: Path, write_ct):
    for z_mm in range(9):
        write_ct(tmp_path / f"{z_mm}", z_mm=z_mm)
    source = DicomSource(tmp_path)
    assert source.load("P1", 3).positions_mm == (1, 4, 7)
    assert len(source.load("P1", 100).slices) == 9


def test_a_missing_folder_and_one_without_ct_are_clear_errors(tmp_path: Path, write_ct):
    with pytest.raises(PhysFedError, match="does not exist; correct"):
        DicomSource(tmp_path / "nowhere")
    write_ct(tmp_path / "a", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_ct(tmp_path / "b", Modality="MR")
    (tmp_path / "c").write_text("hello")
    with pytest.raises(PhysFedError) as error:
        DicomSource(tmp_path)
    for part in ("3 files", "1 localizer", "1 other modality (MR)", "1 not DICOM"):
        assert part in str(error.value)
    write_ct(tmp_path / "d", z_mm=1)
    write_ct(tmp_path / "e", z_mm=2)
    with pytest.raises(PhysFedError, match="2 too few slices"):
        DicomSource(tmp_path, min_slices=3)


def test_an_unknown_patient_is_refused_with_the_nearest_name(tmp_path: Path, write_ct):
    write_ct(tmp_path / "a", patient="A0001")
    with pytest.raises(PhysFedError, match="did you mean 'A0001'"):
        DicomSource(tmp_path).load("A001", None)


def test_nothing_that_is_told_names_a_patient(tmp_path: Path, write_ct, caplog, recwarn):
    secret = "Zyxwvut"
    caplog.set_level(logging.DEBUG)
    for index in range(3):
        path = write_ct(
            tmp_path / secret / f"{secret}{index}",
            patient=secret,
            z_mm=index,
            syntax=JPEGLSLossless,
            StudyTime=f"not a time {secret}",
            PatientName=f"{secret}^{'x' * 80}",
        )
    spoil(path)
    (tmp_path / secret / f"{secret}.txt").write_text("hello")
    caplog.clear()
    recwarn.clear()
    source = DicomSource(tmp_path)
    source.load(secret, None)
    told = json.dumps(source.summary()) + caplog.text + "".join(str(w.message) for w in recwarn)
    assert "undecodable" in told
    assert secret not in told
    assert source.left_out_paths()["not DICOM"] == (tmp_path / secret / f"{secret}.txt",)


def test_the_fingerprint_follows_the_bytes_and_not_the_place(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "a" / "1")
    write_ct(tmp_path / "a" / "2", z_mm=1)
    before = DicomSource(tmp_path).fingerprint("P1")
    path.rename(tmp_path / "moved")
    assert DicomSource(tmp_path).fingerprint("P1") == before
    content = bytearray((tmp_path / "moved").read_bytes())
    content[-1] ^= 1
    (tmp_path / "moved").write_bytes(bytes(content))
    assert DicomSource(tmp_path).fingerprint("P1") != before


def test_a_source_travels_to_another_process(tmp_path: Path, write_ct):
    write_ct(tmp_path / "a", image())
    source = pickle.loads(pickle.dumps(DicomSource(tmp_path)))
    np.testing.assert_array_equal(source.load("P1", None).slices[0], image())


def test_the_real_folder_is_read_completely(real_ct: Path):
    source = DicomSource(real_ct)
    counts = {patient: source.slice_count(patient) for patient in source.ids()}
    assert len(counts) == 20
    assert sorted(counts.values()) == [1] + [2] * 7 + [16] * 10 + [24] * 2
    summary = source.summary()
    # One slice in the folder is a DERIVED average; the other file is the folder's README.
    assert summary["left_out"] == {"derived image": 1, "not DICOM": 1}
    assert summary["slices"] == 223
    for patient in source.ids():
        volume = source.load(patient, None)
        assert len(volume.slices) == counts[patient]
        for hu in volume.slices:
            assert -1024 <= hu.min() <= -990
            soft_tissue = (hu > -200) & (hu < 200)
            assert soft_tissue.mean() > 0.1
            assert 100 < hu.max() < 31000


def test_the_class_of_synthetic_slices_is_ct(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "a", Modality=None)
    assert pydicom.dcmread(path).SOPClassUID == CTImageStorage
    assert DicomSource(tmp_path).slice_count("P1") == 1

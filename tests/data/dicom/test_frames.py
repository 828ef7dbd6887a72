"""A multi-frame file gives the slices that its frames would give as files of their own."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    ParametricMapStorage,
    RLELossless,
)

from physfed_ray.data.dicom import frames, source
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import AIR_HU
from physfed_ray.data.patient import PatientVolume
from physfed_ray.errors import PhysFedError
from tests.data.dicom.multiframe import MACROS, NEVER_SHARED, write_frames

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
]


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 3000, (20, 28)).astype(np.float32)


@pytest.fixture
def singles(write_ct, tmp_path: Path):
    """Return a function that makes data sets of slices; keywords are lists, one value a slice."""

    def make(count: int, **varied) -> list[pydicom.Dataset]:
        made = []
        for index in range(count):
            attributes = {keyword: values[index] for keyword, values in varied.items()}
            attributes = {"z_mm": 2.5 * index, "InstanceNumber": index + 1} | attributes
            hu = attributes.pop("hu", image(index))
            path = write_ct(tmp_path / "singles" / f"{index:03d}", hu, **attributes)
            made.append(pydicom.dcmread(path))
        return made

    return make


def assert_same(one: PatientVolume, other: PatientVolume) -> None:
    assert one.id == other.id
    assert one.positions_mm == other.positions_mm
    assert one.spacings_mm == other.spacings_mm
    for ours, theirs in zip(one.slices, other.slices, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("legacy", [False, True], ids=["enhanced", "legacy converted"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_encoding_gives_the_hu_of_the_single_slices(
    tmp_path: Path, singles, syntax, legacy: bool
):
    slices = singles(3, RescaleIntercept=[-1024, -1000, -1024])
    write_frames(tmp_path / "many" / "a", slices, legacy=legacy, syntax=syntax)
    got = DicomSource(tmp_path / "many")
    assert_same(got.load("P1", None), DicomSource(tmp_path / "singles").load("P1", None))
    assert got.summary() | {"files": 3} == DicomSource(tmp_path / "singles").summary()


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_frames_in_any_order_and_any_place_of_their_groups(tmp_path: Path, write_ct, data):
    count = data.draw(st.integers(1, 6), label="frames")
    values = {
        "PixelMeasuresSequence": [[0.75, 0.5], [0.5, 0.75], [1, 1]],
        "PixelValueTransformationSequence": [(1, -1024), (0.5, -1000), (2, 0)],
        "PlaneOrientationSequence": [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0.94, 0.34]],
        "CTImageFrameTypeSequence": [["ORIGINAL", "PRIMARY", "AXIAL", "NONE"]],
    }
    shared = data.draw(st.sets(st.sampled_from(sorted(values))), label="shared groups")
    if count == 1 and data.draw(st.booleans(), label="position shared"):
        shared = shared | {NEVER_SHARED}
    root = tmp_path / "x"
    shutil.rmtree(root, ignore_errors=True)
    drawn = [
        {name: data.draw(st.sampled_from(choices)) for name, choices in values.items()}
        for _ in range(count)
    ]
    slices = []
    for index, own in enumerate(drawn):
        of = {name: (drawn[0] if name in shared else own)[name] for name in values}
        slope, intercept = of["PixelValueTransformationSequence"]
        path = write_ct(
            root / "singles" / f"{index}",
            np.rint(image(index) / 4) * 4,
            z_mm=3.0 * index,
            InstanceNumber=index + 1,
            PixelSpacing=of["PixelMeasuresSequence"],
            RescaleSlope=slope,
            RescaleIntercept=intercept,
            ImageOrientationPatient=of["PlaneOrientationSequence"],
            ImageType=of["CTImageFrameTypeSequence"],
            signed=True,
        )
        slices.append(pydicom.dcmread(path))
    order = data.draw(st.permutations(range(count)), label="order")
    legacy = data.draw(st.booleans(), label="legacy")
    write_frames(
        root / "many" / "a", [slices[i] for i in order], legacy=legacy, shared=sorted(shared)
    )
    assert_same(
        DicomSource(root / "many").load("P1", None), DicomSource(root / "singles").load("P1", None)
    )


def test_real_series_become_the_same_volumes(tmp_path: Path, real_ct: Path):
    wanted = DicomSource(real_ct)
    for patient in ("Lung_Dx-A0001", "Lung_Dx-A0002", "STS_009"):
        headers = wanted._slices(patient)
        write_frames(
            tmp_path / patient,
            [pydicom.dcmread(header.path) for header in reversed(headers)],
            legacy=patient.startswith("STS"),
            syntax=RLELossless if patient.endswith("2") else ExplicitVRLittleEndian,
        )
        assert_same(DicomSource(tmp_path / patient).load(patient, 5), wanted.load(patient, 5))


def test_padding_of_a_frame_becomes_air(tmp_path: Path, singles):
    hu = np.stack([image(index) for index in range(2)])
    hu[:, 0] = 3071
    slices = singles(2, hu=hu, PixelPaddingValue=[4095] * 2)
    write_frames(tmp_path / "many" / "a", slices)
    for got, given_hu in zip(
        DicomSource(tmp_path / "many").load("P1", None).slices, hu, strict=True
    ):
        assert (got[0] == AIR_HU).all()
        np.testing.assert_array_equal(got[1:], given_hu[1:])


def test_localizers_and_derived_frames_are_left_out_each_by_its_reason(tmp_path: Path, singles):
    types = [["ORIGINAL", "PRIMARY", "AXIAL"]] * 3 + [
        ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ["DERIVED", "PRIMARY", "AXIAL"],
        ["DERIVED", "PRIMARY", "AXIAL"],
    ]
    write_frames(tmp_path / "many" / "a", singles(6, ImageType=types))
    got = DicomSource(tmp_path / "many")
    assert got.slice_count("P1") == 3
    assert got.summary()["left_out"] == {"derived image": 2, "localizer": 1}
    assert got.summary()["left_out_file_numbers"] == {"derived image": [1], "localizer": [1]}
    assert got.left_out_paths()["derived image"] == (tmp_path / "many" / "a",)


def test_a_file_whose_frames_are_all_unusable_counts_once(tmp_path: Path, singles):
    write_frames(tmp_path / "many" / "a", singles(3, Modality=["MR"] * 3))
    write_frames(tmp_path / "many" / "b", singles(4), ImageType=["DERIVED", "PRIMARY"],
                 shared=[name for name in MACROS if name != NEVER_SHARED])  # fmt: skip
    dataset = pydicom.dcmread(tmp_path / "many" / "b")
    dataset.ImageType = ["MIXED", "PRIMARY", "VOLUME", "NONE"]
    del dataset.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence
    dataset.save_as(tmp_path / "many" / "b")
    with pytest.raises(PhysFedError, match=r"1 derived image, 1 other modality \(MR\)"):
        DicomSource(tmp_path / "many")


def test_what_has_no_geometry_of_its_frames_is_left_out_by_name(tmp_path: Path, singles):
    slices = singles(3)
    write_frames(
        tmp_path / "many" / "classic",
        slices,
        SOPClassUID=CTImageStorage,
        PerFrameFunctionalGroupsSequence=None,
        SharedFunctionalGroupsSequence=None,
        ImagePositionPatient=[0, 0, 1],
        PixelSpacing=[1, 1],
        RescaleSlope=1,
        RescaleIntercept=-1024,
    )
    write_frames(tmp_path / "many" / "map", slices, SOPClassUID=ParametricMapStorage)
    write_frames(tmp_path / "many" / "good", slices)
    lost = pydicom.dcmread(tmp_path / "many" / "good")
    for group in lost.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    lost.ImagePositionPatient = [0, 0, 1]
    lost.SOPInstanceUID = "1.2.3"
    lost.save_as(tmp_path / "many" / "lost")
    got = DicomSource(tmp_path / "many")
    assert got.summary()["left_out"] == {"multi-frame image": 2, "no position": 1}
    assert got.slice_count("P1") == 3


def test_more_frames_than_groups_leaves_the_surplus_out(tmp_path: Path, singles):
    path = write_frames(tmp_path / "many" / "a", singles(4))
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[3]
    dataset.save_as(path)
    got = DicomSource(tmp_path / "many")
    assert sum(got.summary()["left_out"].values()) == 1
    assert got.slice_count("P1") == 3


@pytest.mark.parametrize("part", [0.97, 0.7, 0.45])
def test_a_cut_file_keeps_its_whole_frames(tmp_path: Path, singles, part: float):
    path = write_frames(tmp_path / "many" / "a", singles(5))
    content, frame = path.read_bytes(), 20 * 28 * 2
    head = len(content) - 5 * frame
    path.write_bytes(content[: head + int(part * 5 * frame)])
    got = DicomSource(tmp_path / "many")
    whole = int(part * 5)
    assert got.summary()["left_out"] == {"truncated": 5 - whole}
    volume = got.load("P1", None)
    assert volume.positions_mm == tuple(2.5 * np.arange(whole))
    np.testing.assert_array_equal(volume.slices[-1], image(whole - 1))


def test_a_cut_compressed_file_and_one_without_whole_frames_are_truncated(tmp_path, singles):
    slices = singles(3)
    for name, syntax in (("a", RLELossless), ("b", ExplicitVRLittleEndian)):
        path = write_frames(tmp_path / "many" / name, slices, syntax=syntax)
        path.write_bytes(path.read_bytes()[: -2 * 1120 - 600])
    with pytest.raises(PhysFedError, match="2 truncated"):
        DicomSource(tmp_path / "many")


@pytest.mark.parametrize("vr", [b"SQ", b"US", b"OF", b"ZZ"])
def test_pixels_under_another_kind_of_value_are_not_shifted(tmp_path: Path, singles, vr: bytes):
    path = write_frames(tmp_path / "many" / "a", singles(3))
    path.write_bytes(path.read_bytes().replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00" + vr))
    with pytest.raises(PhysFedError, match="1 unreadable"):
        DicomSource(tmp_path / "many")


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_a_broken_frame_costs_one_frame(tmp_path: Path, singles, syntax):
    path = write_frames(tmp_path / "many" / "a", singles(4), syntax=syntax)
    dataset = pydicom.dcmread(path)
    parts = list(generate_frames(dataset.PixelData, number_of_frames=4))
    parts[1] = np.random.default_rng(0).integers(0, 256, 500, np.uint8).tobytes()
    dataset.PixelData = encapsulate(parts)
    dataset.save_as(path)
    got = DicomSource(tmp_path / "many")
    volume = got.load("P1", None)
    assert volume.positions_mm == (0, 5, 7.5)
    np.testing.assert_array_equal(volume.slices[1], image(2))
    assert got.summary()["left_out"] == {"undecodable pixel data": 1}


def test_stacks_and_points_in_time_compete_as_series_do(tmp_path: Path, singles):
    content = [{"StackID": "1", "TemporalPositionIndex": t} for t in (1, 1, 1, 2, 2, 2)]
    content += [{"StackID": "2", "TemporalPositionIndex": 1}] * 2
    slices = singles(8, z_mm=[0, 2, 4, 0, 2, 4, 90, 92])
    write_frames(tmp_path / "many" / "a", slices, content=content)
    got = DicomSource(tmp_path / "many")
    assert got.summary()["left_out"] == {"repeated series": 3}
    volume = got.load("P1", None)
    assert volume.positions_mm == (0, 2, 4, 90, 92)
    for ours, seed in zip(volume.slices, (0, 1, 2, 6, 7), strict=True):
        np.testing.assert_array_equal(ours, image(seed))


def test_a_series_and_its_converted_copy_are_used_once(tmp_path: Path, singles):
    slices = singles(3)
    write_frames(tmp_path / "singles" / "many", slices, legacy=True, SeriesInstanceUID="1.2.9")
    got = DicomSource(tmp_path / "singles")
    assert got.slice_count("P1") == 3
    assert sum(got.summary()["left_out"].values()) == 3


def test_letters_beyond_ascii_stay(tmp_path: Path, singles):
    slices = singles(2, PatientID=["Mü-1"] * 2, SpecificCharacterSet=["ISO_IR 192"] * 2)
    write_frames(tmp_path / "many" / "a", slices)
    assert DicomSource(tmp_path / "many").ids() == DicomSource(tmp_path / "singles").ids()


def test_a_file_is_parsed_once_and_hashed_once(tmp_path: Path, singles, monkeypatch):
    path = write_frames(tmp_path / "many" / "a", singles(6))
    got = DicomSource(tmp_path / "many")
    opened, hashed = [], []
    real_open, real_read = frames.open_dicom, Path.read_bytes
    monkeypatch.setattr(
        frames, "open_dicom", lambda *a, **k: opened.append(1) or real_open(*a, **k)
    )
    monkeypatch.setattr(Path, "read_bytes", lambda self: hashed.append(self) or real_read(self))
    got.load("P1", None)
    before = got.fingerprint("P1")
    assert len(opened) == 1
    assert hashed == [path]
    dataset = pydicom.dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    for one, other in pairwise(groups[:2]):
        one.PlanePositionSequence, other.PlanePositionSequence = (
            other.PlanePositionSequence,
            one.PlanePositionSequence,
        )
    dataset.save_as(path)
    assert source.DicomSource(tmp_path / "many").fingerprint("P1") != before


def test_frames_in_an_interleaved_order_are_one_scan(tmp_path: Path, singles):
    slices = singles(8)
    write_frames(tmp_path / "many" / "a", slices[::2] + slices[1::2])
    got = DicomSource(tmp_path / "many")
    assert_same(got.load("P1", None), DicomSource(tmp_path / "singles").load("P1", None))


def test_passes_over_the_body_show_in_the_times_of_frames(tmp_path: Path, singles):
    places = [0, 2, 4, 6, 7, 5, 3, 1]
    content = [
        {"FrameAcquisitionDateTime": f"2020010212{index:02d}30.5"} for index in range(len(places))
    ]
    write_frames(tmp_path / "many" / "a", singles(8, z_mm=places), content=content)
    got = DicomSource(tmp_path / "many")
    assert got.summary()["left_out"] == {"repeated series": 3}
    assert got.load("P1", None).positions_mm == (0, 2, 4, 6, 7)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_two_files_with_the_same_frames_under_one_uid_are_one(tmp_path: Path, singles, syntax):
    slices = singles(4)
    path = write_frames(tmp_path / "many" / "a", slices)
    uid = pydicom.dcmread(path).SOPInstanceUID
    for patient in ("P1", "P2"):
        write_frames(
            tmp_path / "many" / patient, slices, syntax=syntax, SOPInstanceUID=uid,
            PatientID=patient,
        )  # fmt: skip
    got = DicomSource(tmp_path / "many")
    assert got.ids() == ("P1",)
    assert got.summary()["left_out"] == {
        "duplicate slice": 4,
        "image of another patient too": 4,
    }


def test_other_frames_under_one_uid_are_named(tmp_path: Path, singles):
    slices = singles(3)
    path = write_frames(tmp_path / "many" / "a", slices)
    uid = pydicom.dcmread(path).SOPInstanceUID
    write_frames(
        tmp_path / "many" / "b", singles(3, hu=[image(7), image(8), image(2)]), SOPInstanceUID=uid
    )
    got = DicomSource(tmp_path / "many")
    assert got.slice_count("P1") == 3
    assert got.summary()["left_out"] == {"another image under one UID": 2, "duplicate slice": 1}


def test_one_bad_scale_costs_one_frame_and_notes_count_frames(tmp_path: Path, singles):
    hu = np.stack([image(index) for index in range(4)])
    hu[:, 5, 5] = 0
    slices = singles(4, hu=hu, PixelPaddingValue=[1024] * 4)
    slices[1].RescaleSlope = 0
    write_frames(tmp_path / "many" / "a", slices)
    got = DicomSource(tmp_path / "many")
    assert got.summary()["left_out"] == {"impossible Hounsfield scale": 1}
    volume = got.load("P1", None)
    assert volume.positions_mm == (0, 5, 7.5)
    noted = {"padding value that tissue has, ignored there": 3}
    assert volume.findings.notes == got.summary()["notes"] == noted


def test_unused_bits_of_a_frame_are_not_masked_away(tmp_path: Path, singles):
    slices = singles(3)
    for single in slices:
        single.BitsStored, single.HighBit = 13, 12
    words = np.stack([single.pixel_array for single in slices])
    path = write_frames(tmp_path / "many" / "a", slices)
    dataset = pydicom.dcmread(path)
    words[1, 5:9, 5:9] |= 0x8000
    dataset.PixelData = words.tobytes()
    dataset.save_as(path)
    got = DicomSource(tmp_path / "many")
    assert got.load("P1", None).positions_mm == (0, 5)
    assert got.summary()["left_out"] == {"more bits in use than the header says": 1}


def test_lossy_and_derived_frames_need_their_keys(tmp_path: Path, singles):
    types = [["ORIGINAL", "PRIMARY", "AXIAL"]] * 3 + [["DERIVED", "PRIMARY", "AXIAL"]]
    slices = singles(4, ImageType=types)
    write_frames(tmp_path / "many" / "a", slices, LossyImageCompression="01")
    with pytest.raises(PhysFedError, match="3 lossy compression, 1 derived image"):
        DicomSource(tmp_path / "many")
    assert DicomSource(tmp_path / "many", lossy=True).slice_count("P1") == 3
    both = DicomSource(tmp_path / "many", lossy=True, derived=True).summary()
    assert both["notes"] == {"derived image, let in": 1, "lossy compression, let in": 4}


@pytest.mark.parametrize(("number", "surplus"), [("2000000000", 1), ("-5", None)])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_an_impossible_number_of_frames_takes_no_time(
    tmp_path: Path, singles, number, surplus, syntax
):
    slices = singles(3)
    write_frames(tmp_path / "many" / "a", slices, syntax=syntax)
    path = write_frames(
        tmp_path / "many" / "b", slices, syntax=syntax, SeriesInstanceUID="1.2.9",
        NumberOfFrames=number,
    )  # fmt: skip
    left_out = DicomSource(tmp_path / "many").left_out_paths()
    assert left_out["unreadable" if surplus is None else "truncated"] == (path,)

"""Full and low dose of the same patients: who belongs to whom, and what is left out or told."""

import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from physfed_ray.data.dicom.pairing import OTHER_KERNEL, OTHER_NAME, UNPAIRED
from physfed_ray.data.dicom.pairs import IDENTICAL, SWAPPED, PairedSource, suspicion
from physfed_ray.data.dicom.people import TWO_PEOPLE
from physfed_ray.errors import PhysFedError
from tests.data.dicom.multiframe import write_frames
from tests.data.dicom.pair_files import Layout, noisy_pairs, write_pairs


def assert_pairs(source: PairedSource, doses, patient: str, which=slice(None)) -> None:
    volume = source.load(patient, None)
    np.testing.assert_array_equal(np.stack(volume.slices), doses[patient][0][which])
    assert volume.low is not None
    np.testing.assert_array_equal(np.stack(volume.low), doses[patient][1][which])


@pytest.mark.parametrize("layout", ["tcia", "mayo"])
def test_both_layouts_give_both_doses_slice_by_slice(tmp_path: Path, write_ct, layout: Layout):
    doses = noisy_pairs(3)
    source = PairedSource(write_pairs(tmp_path, doses, write_ct, layout))
    assert source.ids() == ("L001", "L002", "L003")
    for patient in doses:
        assert_pairs(source, doses, patient)
    assert source.load("L001", 1).positions_mm == (5.0,)
    summary = source.summary()
    assert summary["left_out"] == summary["told"] == {}
    assert (summary["kind"], summary["slices"], summary["files"]) == ("pairs", 9, 18)


def test_projections_and_what_names_no_dose_are_left_out_by_name(tmp_path: Path, write_ct):
    doses = noisy_pairs(1)
    write_pairs(tmp_path, doses, write_ct)
    write_ct(
        tmp_path / "L001" / "Low Dose Projections" / "1",
        SeriesDescription="Low dose projections",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        patient="L001",
    )
    path = write_ct(tmp_path / "L001" / "raw" / "2", patient="L001")
    raw = pydicom.dcmread(path)
    block = raw.private_block(0x7029, "Mayo^CT^PD", create=True)
    block.add_new(0x10, "US", 64)
    raw.save_as(path)
    write_ct(tmp_path / "L001" / "3", patient="L001", SeriesDescription="Thorax", z_mm=1)
    source = PairedSource(tmp_path)
    assert source.summary()["left_out"] == {
        "neither full nor low dose by its name": 1,
        "projection data": 2,
    }
    assert_pairs(source, doses, "L001")


def test_slices_without_a_partner_are_left_out_and_counted(tmp_path: Path, write_ct):
    doses = noisy_pairs(2, slices=4)
    write_pairs(tmp_path, doses, write_ct)
    for path in sorted(tmp_path.glob("L001/*/*Full*/*.dcm"))[:1]:
        gone = float(pydicom.dcmread(path).ImagePositionPatient[2])
        path.unlink()
    for path in tmp_path.glob("L002/*/*Low*/*.dcm"):
        path.unlink()
    source = PairedSource(tmp_path)
    assert source.ids() == ("L001",)
    assert source.summary()["left_out"] == {"no slice of the other dose beside it": 5}
    kept = [k for k in range(4) if 5.0 * k != gone]
    assert_pairs(source, doses, "L001", kept)
    with pytest.raises(PhysFedError, match=r"data\.source\.pairs .* at full and at low dose"):
        PairedSource(tmp_path, min_slices=4)


@pytest.mark.parametrize(
    "change",
    [
        {"PixelSpacing": [1.0, 1.01]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0.98, 0.199]},
        {"SliceThickness": 3},
        "matrix",
        "place",
    ],
    ids=str,
)
def test_doses_of_another_geometry_are_no_pair(tmp_path: Path, write_ct, change):
    doses = noisy_pairs(2)
    write_pairs(tmp_path, doses, write_ct)
    for index, path in enumerate(sorted(tmp_path.glob("L002/*/*Low*/*.dcm"))):
        header = pydicom.dcmread(path)
        place = list(header.ImagePositionPatient)
        hu = doses["L002"][1][0].astype(np.float32)
        hu = hu[:-2] if change == "matrix" else hu
        write_ct(
            path, hu, series="low", patient="L002", SeriesDescription="Low Dose Images",
            ConvolutionKernel="B30f", InstanceNumber=index,
            ImagePositionPatient=[3.0, 0.0, place[2]] if change == "place" else place,
            **{"PixelSpacing": [1.0, 1.0], "SliceThickness": 1}
            | (change if isinstance(change, dict) else {}),
        )  # fmt: skip
    source = PairedSource(tmp_path)
    assert source.ids() == ("L001",)
    assert source.summary()["left_out"] == {"another geometry than the other dose": 6}


def test_of_several_kernels_and_thicknesses_each_finds_its_own(tmp_path: Path, write_ct):
    doses = noisy_pairs(1, slices=4)
    for kernel, thick, step, shift in (("B30f", 1, 1, 0), ("D45f", 1, 1, 500), ("B30f", 3, 3, 900)):
        for role, images in zip(("Full", "Low"), doses["L001"], strict=True):
            for index in range(0, 4, step):
                write_ct(
                    tmp_path / f"{role}{kernel}{thick}" / f"{index}",
                    images[index].astype(np.float32) + shift,
                    patient="L001",
                    # The series' own ids would order the kernels of the doses differently.
                    series=f"{'ab'[(kernel == 'B30f') ^ (role == 'Low')]}{thick}{role}",
                    z_mm=5.0 * index,
                    SeriesDescription=f"{role} dose images",
                    ConvolutionKernel=kernel,
                    SliceThickness=thick,
                )
    source = PairedSource(tmp_path)
    volume = source.load("L001", None)
    full, low = np.stack(volume.slices), np.stack(volume.low)
    shift = full[0, 0, 0] + 1000
    assert shift in (0, 500)
    np.testing.assert_array_equal(full, doses["L001"][0] + shift)
    np.testing.assert_array_equal(low, doses["L001"][1] + shift)
    assert source.summary()["left_out"] == {"repeated series": 12}
    assert source.summary()["told"] == {}


def test_another_kernel_alone_is_used_and_told(tmp_path: Path, write_ct):
    doses = noisy_pairs(1)
    write_pairs(tmp_path, doses, write_ct)
    for path in tmp_path.glob("L001/*/*Low*/*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.ConvolutionKernel = "D45f"
        dataset.save_as(path)
    source = PairedSource(tmp_path)
    assert_pairs(source, doses, "L001")
    assert source.summary()["told"] == {OTHER_KERNEL: 1}


def test_copies_and_swapped_doses_are_told(tmp_path: Path, write_ct):
    doses = noisy_pairs(4)
    doses["L002"] = doses["L002"][0], doses["L002"][0]
    doses["L003"] = doses["L003"][::-1]
    source = PairedSource(write_pairs(tmp_path, doses, write_ct))
    assert source.summary()["told"] == {IDENTICAL: 1, SWAPPED: 1}
    assert_pairs(source, doses, "L003")
    full, low = (images[0] for images in doses["L001"])
    assert suspicion(full, low) is None
    assert suspicion(np.full((8, 8), -1000.0), np.full((8, 8), -999.0)) is None


def test_derived_images_are_low_dose_and_no_full_dose(tmp_path: Path, write_ct):
    doses = noisy_pairs(2)
    root = write_pairs(tmp_path, doses, write_ct)
    derived = [*root.glob("*/*/*Low*/*.dcm"), *root.glob("L002/*/*Full*/*.dcm")]
    for path in derived:
        dataset = pydicom.dcmread(path)
        dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
        dataset.save_as(path)
    source = PairedSource(root)
    assert source.ids() == ("L001",)
    assert source.summary()["left_out"] == {"derived image": 3, UNPAIRED: 3}
    assert source.summary()["notes"] == {}
    assert_pairs(source, doses, "L001")
    let_in = PairedSource(root, derived=True)
    assert let_in.ids() == ("L001", "L002")
    assert let_in.summary()["notes"] == {"derived image, let in": 3}


def test_lossy_images_of_either_dose_are_no_pair_unless_let_in(tmp_path: Path, write_ct):
    doses = noisy_pairs(2)
    root = write_pairs(tmp_path, doses, write_ct)
    for path in root.glob("L002/*/*Low*/*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.LossyImageCompression = "01"
        dataset.save_as(path)
    assert PairedSource(root).summary()["left_out"] == {"lossy compression": 3, UNPAIRED: 3}
    assert PairedSource(root, lossy=True).ids() == ("L001", "L002")


@pytest.mark.parametrize(("birth", "pairs"), [("19500102", 3), ("19500101", 3), ("19710203", 0)])
def test_doses_of_two_people_under_one_id_are_no_pair(tmp_path: Path, write_ct, birth, pairs):
    doses = noisy_pairs(2)
    root = write_pairs(tmp_path, doses, write_ct, PatientBirthDate="19500102")
    for path in root.glob("L002/*/*Low*/*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientBirthDate = birth
        dataset.save_as(path)
    source = PairedSource(root)
    assert source.slice_count("L001") == 3
    if pairs:
        assert source.slice_count("L002") == pairs
    else:
        assert source.ids() == ("L001",)
        assert source.summary()["left_out"] == {TWO_PEOPLE: 6}


def test_other_names_are_told_but_for_the_word_of_the_dose(tmp_path: Path, write_ct):
    root = write_pairs(tmp_path, noisy_pairs(2), write_ct)
    for path in root.glob("L*/*/*/*.dcm"):
        dataset = pydicom.dcmread(path)
        dose = "FD" if "Full" in str(path) else "QD"
        other = "Smith" if dose == "FD" else "Jones"
        dataset.PatientName = f"Doe^{dose}" if "L001" in str(path) else f"{other}^Ann"
        dataset.save_as(path)
    source = PairedSource(root)
    assert source.ids() == ("L001", "L002")
    assert source.summary()["told"] == {OTHER_NAME: 1}


def test_patients_without_ids_go_by_their_folders(tmp_path: Path, write_ct):
    doses = noisy_pairs(2)
    for patient in doses:
        uids = {"StudyInstanceUID": f"1.2.{patient[1:]}", "FrameOfReferenceUID": f"1.3.{patient}"}
        write_pairs(tmp_path, {patient: doses[patient]}, write_ct, "mayo", patient="", **uids)
    source = PairedSource(tmp_path)
    assert source.ids() == ("folder/L001", "folder/L002")
    for patient in doses:
        volume = source.load(f"folder/{patient}", None)
        np.testing.assert_array_equal(np.stack(volume.low), doses[patient][1])


@pytest.mark.parametrize("location", [True, False])
def test_positions_come_from_the_location_but_not_from_numbers(tmp_path, write_ct, location: bool):
    doses = noisy_pairs(2)
    root = write_pairs(tmp_path, doses, write_ct)
    for path in root.glob("L002/*/*/*.dcm"):
        dataset = pydicom.dcmread(path)
        if location:
            dataset.SliceLocation = dataset.ImagePositionPatient[2] + 100
        del dataset.ImagePositionPatient
        dataset.save_as(path)
    source = PairedSource(root)
    if location:
        assert source.load("L002", None).positions_mm == (100, 105, 110)
        assert_pairs(source, doses, "L002")
    else:
        assert source.ids() == ("L001",)
        assert source.summary()["left_out"] == {"no position": 6}


def test_what_is_done_to_either_dose_is_noted(tmp_path: Path, write_ct):
    doses = noisy_pairs(1)
    for images in doses["L001"]:
        images[1, 0] = images[1, -1] = 3050
    source = PairedSource(write_pairs(tmp_path, doses, write_ct, PixelPaddingValue=60000))
    notes = source.load("L001", None).findings.notes
    assert notes == source.summary()["notes"] == {"padding without a tag, made air": 2}


def test_keys_give_the_doses_of_other_names(tmp_path: Path, write_ct):
    doses = noisy_pairs(1)
    write_pairs(tmp_path, doses, write_ct, SeriesDescription="Thorax")
    (patient,) = tmp_path.glob("L001/*")
    for folder in sorted(patient.iterdir()):
        folder.rename(patient / folder.name.replace("Full dose", "A").replace("Low Dose", "B"))
    with pytest.raises(PhysFedError, match="6 neither full nor low dose by its name"):
        PairedSource(tmp_path)
    assert_pairs(PairedSource(tmp_path, full="*a images*", low="*B Images*"), doses, "L001")
    assert_pairs(PairedSource(tmp_path, full="*a images*"), doses, "L001")


def test_two_visits_are_both_used(tmp_path: Path, write_ct):
    doses = noisy_pairs(2)
    for visit, patient in enumerate(doses):
        one = {"L001": doses[patient]}
        write_pairs(tmp_path / str(visit), one, write_ct, StudyInstanceUID=f"1.2.{visit}",
                    StudyDate=f"200{visit}0101")  # fmt: skip
    volume = PairedSource(tmp_path).load("L001", None)
    assert volume.positions_mm == (0, 5, 10) * 2
    for index, patient in enumerate(doses):
        part = slice(3 * index, 3 * index + 3)
        np.testing.assert_array_equal(np.stack(volume.slices[part]), doses[patient][0])
        np.testing.assert_array_equal(np.stack(volume.low[part]), doses[patient][1])


def test_multi_frame_files_make_pairs(tmp_path: Path, write_ct):
    doses = noisy_pairs(1)
    write_pairs(tmp_path / "singles", doses, write_ct)
    for role in ("Full", "Low"):
        singles = sorted((tmp_path / "singles").glob(f"L001/*/*{role}*/*.dcm"))
        write_frames(tmp_path / "many" / f"{role} dose", [pydicom.dcmread(p) for p in singles])
    source = PairedSource(tmp_path / "many")
    assert_pairs(source, doses, "L001")


def test_a_slice_that_does_not_decode_costs_its_pair(tmp_path: Path, write_ct):
    doses = noisy_pairs(1)
    write_pairs(tmp_path, doses, write_ct)
    (path,) = (p for p in tmp_path.glob("L001/*/*Low*/*.dcm") if p.name == "1-001.dcm")
    dataset = pydicom.dcmread(path)
    dataset.BitsStored = 40
    dataset.save_as(path)
    source = PairedSource(tmp_path)
    assert_pairs(source, doses, "L001", [0, 2])
    assert sum(source.summary()["left_out"].values()) in (1, 2)


def test_the_headers_give_what_they_say_of_the_scanner(tmp_path: Path, write_ct):
    doses = noisy_pairs(2)
    write_pairs(tmp_path, doses, write_ct, spacing_mm=4.0, DistanceSourceToPatient=595,
                DistanceSourceToDetector="1085.6")  # fmt: skip
    source = PairedSource(tmp_path)
    assert source.scanner(["L001", "L002"]) == {
        "pixel_mm": 0.5,
        "source_mm": 595.0,
        "detector_mm": 490.6,
    }


def test_the_fingerprint_follows_both_doses_and_the_source_travels(tmp_path: Path, write_ct):
    doses = noisy_pairs(1)
    source = PairedSource(write_pairs(tmp_path, doses, write_ct))
    before = source.fingerprint("L001")
    assert pickle.loads(pickle.dumps(source)).fingerprint("L001") == before
    path = next(tmp_path.glob("L001/*/*Low*/*.dcm"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert PairedSource(tmp_path).fingerprint("L001") != before


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    full=st.lists(st.integers(0, 12), min_size=1, max_size=8, unique=True),
    low=st.lists(st.integers(0, 12), min_size=1, max_size=8, unique=True),
    shift=st.floats(-0.04, 0.04),
)
def test_pairs_are_the_positions_that_both_doses_have(
    tmp_path_factory: pytest.TempPathFactory, write_ct, full, low, shift
):
    root = tmp_path_factory.mktemp("pairs")
    for role, places, shifted in (("full", full, 0.0), ("low", low, round(shift, 3))):
        for place in places:
            hu = np.full((16, 16), place + (500 if role == "low" else 0), np.float32)
            write_ct(
                root / f"{role} dose" / f"{place}", hu, series=role, z_mm=2.0 * place + shifted
            )
    common = sorted(set(full) & set(low))
    if not common:
        with pytest.raises(PhysFedError):
            PairedSource(root)
        return
    volume = PairedSource(root).load("P1", None)
    assert [hu[0, 0] for hu in volume.slices] == common
    assert [hu[0, 0] - 500 for hu in volume.low] == common

"""Whose slices they are: nobody is merged with another, and nobody is split."""

from collections.abc import Callable
from pathlib import Path

import pytest

from physfed_ray.data.dicom.people import TWO_PEOPLE
from physfed_ray.data.dicom.source import DicomSource

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, write_ct: Write) -> Write:
    """Return a function that writes three slices of a person into a folder."""

    def slices(folder: str, *, study: str, person: str = "", **attributes) -> None:
        for z_mm in range(3):
            write_ct(
                tmp_path / folder / f"{Path(study).name}-{z_mm}",
                z_mm=z_mm,
                patient=study,
                PatientName=person,
                **({"PatientID": "P1"} | attributes),
            )

    return slices


def source(tmp_path: Path) -> DicomSource:
    return DicomSource(tmp_path)


def test_two_people_with_one_id_are_told_apart_for_ever(tmp_path: Path, write: Write):
    write("a", study="1", person="Doe^Jane", PatientBirthDate="19500307")
    write("b", study="2", person="Miller^Bob", PatientBirthDate="19721130")
    ids = source(tmp_path).ids()
    assert len(ids) == 2
    assert all(id.startswith("P1 (person ") for id in ids)
    assert not any(word in id.lower() for id in ids for word in ("doe", "jane", "miller", "1950"))
    assert source(tmp_path).summary()["left_out"] == {}
    for z_mm in range(3):
        (tmp_path / "a" / f"1-{z_mm}").rename(tmp_path / "b" / f"x{z_mm}")
    assert source(tmp_path).ids() == ids


def test_one_person_in_several_spellings_stays_one(tmp_path: Path, write: Write):
    names = ["Doe^Jane", "DOE^JANE^^", "jane doe", "Doe^J", "", "Anonymous"]
    for index, name in enumerate(names):
        write("a", study=f"{index}", person=name)
    assert source(tmp_path).ids() == ("P1",)
    assert source(tmp_path).slice_count("P1") == 3 * len(names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # A second birth date or name is as likely mistyped as another person's.
        ({"person": "Doe^Jane", "PatientBirthDate": "19500307"},
         {"person": "Doe^Jane", "PatientBirthDate": "19500308"}),
        ({"person": "Schmidt^Eva"}, {"person": "Schmitt^Eva"}),
        ({"person": "Doe^Jane", "PatientBirthDate": "19500307"},
         {"person": "Roe^Jane", "PatientBirthDate": "19500307"}),
        ({"person": "Doe^Jane", "PatientSex": "F"}, {"person": "Doe^Jane", "PatientSex": "M"}),
    ],
)  # fmt: skip
def test_doubt_keeps_the_larger_part_and_splits_nobody(tmp_path, write: Write, one, other):
    write("a", study="1", **one)
    write("a", study="2", **one)
    write("b", study="3", **other)
    found = source(tmp_path)
    assert found.ids() == ("P1",)
    assert found.slice_count("P1") == 6
    assert found.summary()["left_out"] == {TWO_PEOPLE: 3}


def test_who_could_be_either_of_two_is_left_out(tmp_path: Path, write: Write):
    write("a", study="1", person="Doe^Jane", PatientBirthDate="19500307")
    write("b", study="2", person="Miller^Bob", PatientBirthDate="19721130")
    write("c", study="3")
    found = source(tmp_path)
    assert len(found.ids()) == 2
    assert found.summary()["left_out"] == {TWO_PEOPLE: 3}


@pytest.mark.parametrize("blank", ["", "ANONYMOUS", "0", "N/A", "unknown "])
def test_who_has_no_id_goes_by_the_folder(tmp_path: Path, write: Write, blank: str):
    for folder in ("ann", "bob", "site/cid"):
        write(folder, study=folder, PatientID=blank)
    assert source(tmp_path).ids() == ("folder ann", "folder bob", "folder site/cid")


def test_made_up_uids_do_not_join_two_folders(tmp_path: Path, write_ct: Write):
    for folder in ("ann", "bob"):
        for z_mm in range(3):
            write_ct(tmp_path / folder / f"{z_mm}", z_mm=z_mm, PatientID="")
    assert source(tmp_path).ids() == ("folder ann", "folder bob")


def test_a_patients_folders_of_series_and_studies_are_one_patient(tmp_path, write: Write):
    write("ann/ST0001/SE0001", study="1", PatientID="")
    write("ann/ST0002/SE0001", study="2", PatientID="")
    write("ann/20210131 chest", study="3", PatientID="")
    write("bob/lung", study="4", PatientID="")
    write("bob/soft", study="4", PatientID="", SeriesInstanceUID="1.2.3")
    write("cid/one", study="5", PatientID="")
    write("cid/two", study="6", PatientID="", FrameOfReferenceUID="1.2.5")
    write("cid/three", study="7", PatientID="", FrameOfReferenceUID="1.2.5")
    assert source(tmp_path).ids() == (
        "folder ann", "folder bob/lung", "folder cid/one", "folder cid/three",
    )  # fmt: skip


def test_a_copy_of_a_folder_is_the_same_patient(tmp_path: Path, write: Write):
    write("ann", study="1", PatientID="")
    (tmp_path / "backup").mkdir()
    for path in (tmp_path / "ann").iterdir():
        (tmp_path / "backup" / path.name).write_bytes(path.read_bytes())
    found = source(tmp_path)
    assert found.ids() == ("folder ann",)
    assert found.summary()["left_out"] == {"duplicate slice": 3}


def test_people_without_ids_in_one_folder_are_told_apart_by_name(tmp_path: Path, write: Write):
    write("all", study="1", person="Doe^Jane", PatientID="")
    write("all", study="2", person="Doe^John", PatientID="")
    assert len(source(tmp_path).ids()) == 2


def test_a_person_without_an_id_in_two_folders_is_one(tmp_path: Path, write: Write):
    for folder in ("a", "b"):
        write(folder, study=folder, person="Doe^Jane", PatientID="", PatientBirthDate="19500307")
    assert source(tmp_path).ids() == ("folder a",)


def test_files_that_lost_their_id_stay_with_their_study(tmp_path: Path, write: Write):
    write("a", study="1", person="Doe^Jane")
    write("a/SE2", study="1", PatientID="", SeriesInstanceUID="1.2.3")
    write("a", study="2", PatientID="")
    assert source(tmp_path).ids() == ("P1", "folder a")


def test_an_odd_id_that_one_patient_has_stays(tmp_path: Path, write: Write):
    for patient in ("0", "1", "2"):
        write(patient, study=f"s{patient}", PatientID=patient)
    assert source(tmp_path).ids() == ("0", "1", "2")


def test_folders_of_any_bytes_give_ids_that_can_be_written(tmp_path: Path, write: Write):
    write("a", study="1", PatientID="")
    odd = tmp_path / "fran\udce7ois"
    (tmp_path / "a").rename(odd)
    (id,) = source(tmp_path).ids()
    assert id.encode() == b"folder fran\\xe7ois"

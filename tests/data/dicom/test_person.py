"""One person in several spellings, and two people."""

import pytest
from pydicom.dataset import Dataset

from physfed_ray.data.dicom.files import quiet_pydicom
from physfed_ray.data.dicom.person import NOBODY, Person, is_placeholder, person_of


def person(name: str = "", birth: str = "", sex: str = "", patient: str = "17") -> Person:
    dataset = Dataset()
    with quiet_pydicom():
        dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = name, birth, sex
        return person_of(dataset, patient)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Doe^Jane",), ("DOE^JANE^^^",)),
        (("Doe^Jane",), (" doe  jane ",)),
        (("Doe^Jane",), ("Jane Doe",)),
        (("Doe^Jane",), ("DOE^J",)),
        (("Doe^Jane",), ("Doe^Jane^Mary^Dr.",)),
        (("Doe^Jane",), ("DOEJANE",)),
        (("Müller^Änne",), ("Mueller^Aenne",)),
        (("Müller^Änne",), ("MULLER^ANNE",)),
        (("Yamada^Tarou=山田^太郎",), ("YAMADA^TAROU",)),
        (("Doe^Jane", "19500307", "F"), ("", "", "")),
        (("Doe^Jane", "19500307"), ("Doe^Jane", "1950-03-07")),
        (("Doe^Jane", "19500307"), ("Doe^Jane", "1950")),
        (("Doe^Jane", "19500307"), ("Doe^Jane", "19500101")),
        (("Doe^Jane", "", "F"), ("Doe^Jane", "", "O")),
        (("Doe^Jane",), ("17",)),
        (("Doe^Jane",), ("Anonymous^^^",)),
        (("Doe^Jane",), ("ANON 0012",)),
    ],
)
def test_spelling_and_blanks_do_not_contradict(one: tuple[str, ...], other: tuple[str, ...]):
    assert not person(*one).contradicts(person(*other))
    assert not person(*other).contradicts(person(*one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Doe^Jane",), ("Roe^Jane",)),
        (("Doe^Jane",), ("Doe^John",)),
        (("Doe^Jane",), ("Doe^K",)),
        (("Doe^Jane", "19500307"), ("Doe^Jane", "19510307")),
        (("Doe^Jane", "19500307"), ("Doe^Jane", "19500308")),
        (("Doe^Jane", "", "F"), ("Doe^Jane", "", "M")),
        (("山田^太郎",), ("山田^花子",)),
    ],
)
def test_people_contradict_each_other(one: tuple[str, ...], other: tuple[str, ...]):
    assert person(*one).contradicts(person(*other))
    assert person(*other).contradicts(person(*one))


@pytest.mark.parametrize(
    "patient",
    ["", "  ", "ANONYMOUS", "anon", "0", "000", "unknown", "none", "N/A", "n.a.", "Anonymized",
     "XXXX", "-", "^^", "No Name", "NULL", "removed", "?"],
)  # fmt: skip
def test_ids_that_are_blank_in_disguise(patient: str):
    assert is_placeholder(patient)
    assert person(patient) == NOBODY


@pytest.mark.parametrize("patient", ["1", "P1", "ANON_001", "anonymous7", "10", "Noah", "A0", "N4"])
def test_ids_that_are_somebodys(patient: str):
    assert not is_placeholder(patient)

"""Names say the dose; what says both or nothing decides nothing."""

from pathlib import PurePath

import pytest

from physfed_ray.data.dicom.roles import Roles, without_role


@pytest.mark.parametrize(
    ("role", "path", "description"),
    [
        ("full", "C002/12-23-2021-NA-NA-62464/1.000000-Full Dose Images-68668/1-001.dcm", ""),
        ("low", "C002/12-23-2021-NA-NA-62464/1.000000-Low Dose Images-39882/1-001.dcm", ""),
        ("full", "LDCT-and-Projection-data/C002/1.000000-Full Dose Images-68668/1.dcm", ""),
        ("full", "a/1.dcm", "Full dose images"),
        ("low", "a/1.dcm", "LOW DOSE CHEST"),
        ("low", "full_cohort/a/1.dcm", "Quarter-Dose"),
        ("low", "a/1.dcm", "1/4 dose"),
        ("low", "a/1.dcm", "25% dose"),
        ("full", "full_1mm/L067/full_1mm/L067_FD_1_1.CT.0001.0001.2015.12.22.IMA", "Abdomen"),
        ("low", "quarter_3mm/L067/quarter_3mm/L067_QD_3_1.CT.0002.0001.IMA", "Abdomen"),
        ("low", "L067_QD_1_1.CT.0001.IMA", ""),
        ("full", "Training/L067_FD_1_1.CT.0001.IMA", ""),
        ("low", "study/ldct/7", ""),
        ("full", "study/ndct/7", ""),
        (None, "a/1.dcm", "Abdomen"),
        (None, "a/fullerton/lowell/1.dcm", "Chest"),
        (None, "a/1.dcm", "full dose and low dose"),
        (None, "a/full_low/1.dcm", ""),
    ],
)
def test_names_say_the_dose(role: str | None, path: str, description: str):
    assert Roles().of(PurePath(path), description, "ORIGINAL PRIMARY AXIAL") == role


def test_patterns_win_over_names():
    both = Roles("*arm_a*", "*ARM_B*")
    assert both.of(PurePath("arm_a/low dose/1"), "", "") == "full"
    assert both.of(PurePath("x/1"), "Arm_b, full dose", "") == "low"
    assert both.of(PurePath("arm_c/1"), "", "") is None
    assert both.of(PurePath("arm_a/arm_b/1"), "", "") is None
    assert Roles(low="*b30*").of(PurePath("x/b30/1"), "", "") == "low"
    assert Roles(low="*b30*").of(PurePath("x/b31/1"), "", "") == "full"
    assert Roles(full="*b30*").of(PurePath("x/b31/1"), "", "") == "low"


@pytest.mark.parametrize(
    ("patient", "person"),
    [
        ("L067_FD", "L067"),
        ("L067_QD_1mm", "L067"),
        ("folder full_1mm/L067/full_1mm", "folder/L067"),
        ("Fullerton-7", "Fullerton-7"),
        ("L067", "L067"),
        ("FD_L-067^x", "L-067^x"),
        ("low", "low"),
        ("", ""),
    ],
)
def test_a_person_is_known_without_the_dose(patient: str, person: str):
    assert without_role(patient) == person

"""What is left out is said wherever patients are counted, or missing."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from physfed_ray.data.left_out import left_out_sentence, source_line
from physfed_ray.data.plan import plan
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.screen.describe import print_description

SUMMARY = {
    "patients": 2,
    "slices": 7,
    "left_out": {"derived image": 1, "localizer": 12},
    "missing_from_dicomdir": 3,
}


def experiment(root: Path, **data) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "few",
            "data": {"source": {"dicom": str(root)}, "image_size": 64, **data},
            "clients": [{"id": c, "protocol": "paper-1"} for c in "ab"],
            "method": {"name": "fedavg"},
            "training": {"rounds": 1},
        }
    )


@pytest.fixture
def folder(tmp_path: Path, write_ct) -> Path:
    for patient in ("A", "B", "C", "D"):
        write_ct(tmp_path / "ct" / patient, patient=patient)
    for index in range(3):
        write_ct(tmp_path / "ct" / f"s{index}", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "ct" / "link").symlink_to("/")
    return tmp_path / "ct"


def test_counts_by_reason_are_said_in_one_line():
    assert source_line(SUMMARY) == (
        "data: 2 patients, 7 slices; files left out: 12 localizer, 1 derived image, "
        "3 listed in a DICOMDIR but not there"
    )
    assert left_out_sentence({"left_out": {}}) == ""


def test_too_few_patients_say_what_was_left_out(folder: Path):
    with pytest.raises(PhysFedError) as error:
        plan(experiment(folder, test_patients=9, validation_patients=1))
    assert "4 patients but" in str(error.value)
    assert "Files left out: 3 localizer, 1 link out of the folder." in str(error.value)


def test_an_unknown_patient_says_it_too(folder: Path):
    with pytest.raises(PhysFedError, match=r"do not have.*Files left out: 3 localizer"):
        plan(experiment(folder, test_patients=["X"], validation_patients=1))


def test_describe_says_it(folder: Path):
    out = io.StringIO()
    console = Console(file=out, width=300)
    print_description(experiment(folder, test_patients=1, validation_patients=1), console)
    assert "data: 4 patients, 4 series, 4 slices; files left out: 3 localizer" in out.getvalue()

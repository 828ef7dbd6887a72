"""In which folder a patient's files lie."""

from pathlib import Path

import pytest

from physfed_ray.data.dicom.subfolders import patient_folder

ROOT = Path("/ct")


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("a.dcm", ()),
        ("ann/a.dcm", ("ann",)),
        ("site/ann/a.dcm", ("site", "ann")),
        ("ann/ST0001/SE0002/IM3", ("ann",)),
        ("ann/series 3/a", ("ann",)),
        ("ann/1.2.840.113619.2.55.3/a", ("ann",)),
        ("ann/01-31-2000-NA-CT CHEST-12345/3.000000-Axial 5.0-678/a", ("ann",)),
        ("ann/2020-01-31/DICOM/a", ("ann",)),
        ("ann/20200131_visit/ct/a", ("ann",)),
        ("ann/baseline/a", ("ann",)),
        ("data/LIDC-0001/a", ("data", "LIDC-0001")),
        ("data/0001/a", ("data", "0001")),
        ("SE0001/a", ("SE0001",)),
        ("ST1/SE1/a", ("ST1",)),
        ("data/scanner/a", ("data", "scanner")),
        ("data/steve/a", ("data", "steve")),
    ],
)
def test_folders_of_studies_and_series_are_not_the_patients(file: str, folder: tuple[str, ...]):
    assert patient_folder(ROOT / file, ROOT) == folder

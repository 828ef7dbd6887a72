"""Who a patient is: not by the slices that are read, the size, or the salt."""

from pathlib import Path

import pytest

from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.identity import identities
from physfed_ray.data.phantom import PhantomSource


def test_a_phantom_is_its_seed_and_number() -> None:
    few, many = PhantomSource(3, 2, 7, 64), PhantomSource(9, 12, 7, 128)
    for patient in few.ids():
        assert identities(few, 7, [patient]) == identities(many, 7, [patient])
    assert len(identities(few, 7, few.ids())) == 3
    assert not {*identities(few, 7, few.ids())} & {*identities(few, 8, few.ids())}


def test_a_dicom_patient_is_the_studies(real_ct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = next(path for path in sorted(real_ct.iterdir()) if path.is_dir())
    whole = DicomSource(folder)
    known = {patient: identities(whole, 1, [patient]) for patient in whole.ids()}
    assert len({hash for found in known.values() for hash in found}) >= len(known)
    monkeypatch.setenv("PHYSFED_SALT", "another")
    assert known[whole.ids()[0]] == identities(whole, 2, [whole.ids()[0]])
    assert len(known[whole.ids()[0]][0]) == 32

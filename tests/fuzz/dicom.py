"""Folders of DICOM with damaged files, and pydicom's own values as the judge."""

import io
import json
import os
import random
from pathlib import Path

import pydicom
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian

from physfed_ray.data.dicom.source import DicomSource
from tests.fuzz.dicom_files import Base, make_files, single
from tests.fuzz.dicom_judge import Folder
from tests.fuzz.elements import damage_elements
from tests.fuzz.folders import A_FOLDER, DISTURBANCES
from tests.fuzz.harness import SAME, Attempt, Kind, WrongError, call, refused
from tests.fuzz.mutators import damage

EXPERIMENT = """
name: damaged
data: {{source: {{dicom: {folder}}}, image_size: 32, test_patients: 1, reuse_patients: true}}
clients: paper-1
method: fedavg
training: {{patch: 32}}
"""
PATIENTS = ("AB", "AB", "AB", "BA", "AC", "CA", "FA", "LB", "FL", "ABC")
"""Who lies in the folder; the files of the first are damaged."""


class Dicom(Kind):
    """Two or three patients in a folder; some files of the first are damaged."""

    name = "dicom"

    def prepare(self, folder: Path) -> None:
        """Make the patients' files, an index of some, and a file of somebody else."""
        folder.mkdir(exist_ok=True)
        self._files = make_files(folder)
        self._outsider = single("OUTSIDER", 0, 50, -1024, ExplicitVRLittleEndian)
        indexed = FileSet()
        for name in ("A/0.dcm", "A/1.dcm"):
            indexed.add(pydicom.dcmread(io.BytesIO(self._files[name].content)))
        indexed.write(folder / "index")
        self._index = (folder / "index" / "DICOMDIR").read_bytes()

    def attempt(self, attempt: Attempt) -> str:
        """Damage one or two files, or the folder, and read the folder."""
        rng, root = attempt.rng, attempt.folder / "root"
        patients = rng.choice(PATIENTS)
        bases = {name: base for name, base in self._files.items() if base.patient in patients}
        contents = {name: base.content for name, base in bases.items()}
        own = [name for name, base in bases.items() if base.patient == patients[0]]
        targets = rng.sample(own, 1 if len(own) < 3 else rng.choice([1, 1, 2]))
        structure = rng.random() < 0.15
        for name in targets if not structure or rng.random() < 0.3 else []:
            contents[name] = self._damaged(rng, bases[name], attempt.damage)
        for name, content in contents.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        if structure and self._disturb(attempt, root, root / targets[0]) == A_FOLDER:
            del contents[targets[0]]
        if rng.random() < 0.04:
            return _describe(attempt, root)
        return _read(attempt, root, bases, contents)

    def _damaged(self, rng: random.Random, base: Base, said: list[str]) -> bytes:
        file = base.parsed
        if file is None or rng.random() < 0.35:
            return damage(rng, base.content, said)
        other = rng.choice(
            [b.parsed for b in self._files.values() if b.parsed and b.patient != base.patient]
        )
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            file = damage_elements(rng, file, other, said)
        content = file.encoded()
        return damage(rng, content, said) if rng.random() < 0.05 else content

    def _disturb(self, attempt: Attempt, root: Path, file: Path) -> str:
        """Change the folder around a file; return how."""
        name, disturb = attempt.rng.choice(list(DISTURBANCES.items()))
        attempt.damage.append(f"folder: {name}")
        outside = attempt.folder / "outside"
        outside.mkdir()
        (outside / "x.dcm").write_bytes(self._outsider.content)
        disturb(attempt.rng, root, file, outside, self._index)
        return name


def _describe(attempt: Attempt, root: Path) -> str:
    """Describe an experiment on a folder by the command line."""
    attempt.damage.insert(0, "describe")
    file = attempt.folder / "experiment.yaml"
    file.write_text(EXPERIMENT.format(folder=json.dumps(os.fsdecode(root))))
    status, text = call("describe", str(file))
    _keeps_names(text)
    refused(status, text)
    return SAME


def _read(attempt: Attempt, root: Path, bases: dict[str, Base], contents: dict[str, bytes]) -> str:
    """Read a folder as the product does, and judge what it found and what it said."""
    source = DicomSource(root)
    found = {patient: source.load(patient, None) for patient in source.ids()}
    summary = source.summary()
    for patient in source.ids():
        source.fingerprint(patient)
    attempt.told += [*summary["notes"], *(f"left out: {why}" for why in summary["left_out"])]
    _keeps_names(json.dumps([summary, attempt.told]))
    return Folder(attempt, root, bases, contents, source.left_out_paths()).judge(found)


def _keeps_names(text: str) -> None:
    if "Secret" in text:
        raise WrongError("a person's name is in what is printed, logged or stored")

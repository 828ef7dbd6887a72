"""Folders of DICOM with damaged files, and pydicom's own values as the judge."""

import io
import json
import os
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.pixels import apply_rescale
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from physfed_ray.data.dicom.source import DicomSource
from tests.fuzz.elements import File, damage_elements, parse
from tests.fuzz.folders import DISTURBANCES
from tests.fuzz.harness import SAME, TOLD, Attempt, Kind, WrongError, call, refused
from tests.fuzz.mutators import damage

EXPERIMENT = """
name: damaged
data: {{source: {{dicom: {folder}}}, image_size: 32, test_patients: 1, reuse_patients: true}}
clients: paper-1
method: fedavg
training: {{patch: 32}}
"""
SIZE = 40
AIR_HU = -1000.0
LOWEST_HU, HIGHEST_HU = -1024.0, 31_000.0
TOUCHABLE_HU = -200.0
"""What may become air without a word lies below: no tissue but lung does, and the base has none."""
IDENTITY = {
    (0x0008, 0x0018), (0x0010, 0x0010), (0x0010, 0x0020), (0x0010, 0x0030), (0x0010, 0x0040),
    (0x0020, 0x000D), (0x0020, 0x000E), (0x0020, 0x0013), (0x0020, 0x0032), (0x0020, 0x0037),
    (0x0020, 0x0052), (0x0020, 0x1041), (0x0020, 0x0012), (0x0008, 0x0020), (0x0020, 0x0011),
}  # fmt: skip
"""Tags by which files are grouped: a file with another one's may cost that one its place, aloud."""


@dataclass(frozen=True)
class Base:
    """An undamaged file: its bytes, whose it is, its HU, its position; elements if not deflated."""

    content: bytes
    patient: str
    hu: np.ndarray
    z_mm: float
    parsed: File | None


def _body(seed: int) -> np.ndarray:
    """Return a small slice with air around it, fat, muscle and bone, unlike any other seed's."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    radius = np.hypot(x / 0.8, y / rng.uniform(0.55, 0.75))
    hu = np.select([radius < 0.25, radius < 0.85, radius < 1], [700.0, 45.0, -100.0], -1000.0)
    return np.clip(np.rint(hu + rng.normal(0, 8, hu.shape)), -1020, 3000).astype(np.float32)


def _dataset(patient: str, number: int, hu: np.ndarray, intercept: int, syntax: UID) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[patient, str(number)])
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientID, dataset.PatientName = patient, f"Secret^{patient}"
    dataset.PatientBirthDate, dataset.PatientSex = "19600101", "F"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[patient, keyword]))
    dataset.StudyDate, dataset.SeriesNumber, dataset.InstanceNumber = "20200101", 1, number + 1
    dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "1200", "1", ""
    dataset.ImagePositionPatient = [-100, -100, 5.0 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.75, 0.5], 5
    dataset.Rows = dataset.Columns = SIZE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(intercept == 0)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, intercept, "HU"
    stored = (hu - intercept).astype("<i2" if intercept == 0 else "<u2")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    native = not syntax.is_encapsulated
    dataset.file_meta.TransferSyntaxUID = syntax if native else ExplicitVRLittleEndian
    if syntax == JPEG2000Lossless:
        frame = encode_array(stored, bits_stored=16, photometric_interpretation=2)
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    elif not native:
        dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def _base(patient: str, number: int, seed: int, intercept: int, syntax: UID) -> Base:
    hu = _body(seed)
    buffer = io.BytesIO()
    _dataset(patient, number, hu, intercept, syntax).save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    parsed = None if syntax.is_deflated else parse(content, syntax.is_implicit_VR)
    return Base(content, patient, hu, 5.0 * number, parsed)


def expected(content: bytes) -> Dataset | None:
    """Return what pydicom makes of a file, its HU as ``hu``, None where it makes nothing of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(content), force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = (
                    ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                )
            dataset.hu = np.asarray(apply_rescale(dataset.pixel_array, dataset), np.float64)
            return dataset
    except Exception:  # pydicom raises whatever it runs into
        return None


class Dicom(Kind):
    """Two or three patients in a folder; some files of the first are damaged."""

    name = "dicom"

    def prepare(self, folder: Path) -> None:
        """Make the patients: native, implicit, signed and compressed."""
        self._files = {
            f"A/{n}.dcm": _base("A", n, n, -1024, ExplicitVRLittleEndian) for n in range(4)
        }
        self._files |= {
            f"B/im{n}": _base("B", n, 10 + n, 0, ImplicitVRLittleEndian) for n in range(3)
        }
        syntaxes = [
            RLELossless, JPEGLSLossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian,
        ]  # fmt: skip
        self._files |= {
            f"C/{n}": _base("C", n, 20 + n, -1024, syntax) for n, syntax in enumerate(syntaxes)
        }
        self._outsider = _base("OUTSIDER", 0, 30, -1024, ExplicitVRLittleEndian)
        self._index = self._make_index(folder / "index")

    def _make_index(self, folder: Path) -> bytes:
        files = FileSet()
        for name in ("A/0.dcm", "A/1.dcm"):
            files.add(pydicom.dcmread(io.BytesIO(self._files[name].content)))
        files.write(folder)
        return (folder / "DICOMDIR").read_bytes()

    def attempt(self, attempt: Attempt) -> str:
        """Damage one or two files, or the folder, and read the folder."""
        rng, root = attempt.rng, attempt.folder / "root"
        patients = rng.choice(["AB", "AB", "AC", "CA", "BA", "ABC"])
        files = {name: base for name, base in self._files.items() if base.patient in patients}
        contents = {name: base.content for name, base in files.items()}
        own = [name for name, base in files.items() if base.patient == patients[0]]
        targets = rng.sample(own, 1 if len(own) < 3 else rng.choice([1, 1, 2]))
        structure = rng.random() < 0.15
        for name in targets if not structure or rng.random() < 0.3 else []:
            contents[name] = self._damaged(rng, files[name], contents[name], attempt.damage)
        for name, content in contents.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        if structure:
            self._disturb(attempt, root, targets)
        gone = "folder: a folder for a file" in attempt.damage
        if gone:
            del contents[targets[0]]
        if rng.random() < 0.04:
            return self._described(attempt, root)
        intact = {n: files[n] for n, content in contents.items() if content == files[n].content}
        found, left_out, summary = _read(attempt, root)
        attempt.told += list(summary["notes"])
        attempt.told += [f"left out: {reason}" for reason in left_out]
        return self._judge(attempt, root, contents, intact, found, left_out)

    def _described(self, attempt: Attempt, root: Path) -> str:
        """Describe an experiment on the folder by the command line."""
        attempt.damage.insert(0, "describe")
        file = attempt.folder / "experiment.yaml"
        file.write_text(EXPERIMENT.format(folder=json.dumps(os.fsdecode(root))))
        status, text = call("describe", str(file))
        if "Secret" in text:
            raise WrongError("a person's name is printed")
        refused(status, text)
        return SAME

    def _damaged(self, rng: random.Random, base: Base, content: bytes, said: list[str]) -> bytes:
        file = base.parsed
        if file is None or rng.random() < 0.35:
            return damage(rng, content, said)
        other = rng.choice(
            [b.parsed for b in self._files.values() if b.parsed and b.patient != base.patient]
        )
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            file = damage_elements(rng, file, other, said)
        content = file.encoded()
        return damage(rng, content, said) if rng.random() < 0.05 else content

    def _disturb(self, attempt: Attempt, root: Path, targets: list[str]) -> None:
        """Change the folder around the files."""
        name, disturb = attempt.rng.choice(list(DISTURBANCES.items()))
        attempt.damage.append(f"folder: {name}")
        outside = attempt.folder / "outside"
        outside.mkdir()
        (outside / "x.dcm").write_bytes(self._outsider.content)
        disturb(attempt.rng, root, root / targets[0], outside, self._index)

    def _judge(
        self,
        attempt: Attempt,
        root: Path,
        contents: Mapping[str, bytes],
        intact: Mapping[str, Base],
        found: Mapping[str, Any],
        left_out: Mapping[str, tuple[Path, ...]],
    ) -> str:
        candidates = {name: base.hu for name, base in intact.items()}
        datasets = {n: expected(c) for n, c in contents.items() if n not in intact}
        owner: dict[str, str] = {}
        damaged = 0
        for patient, volume in found.items():
            order: dict[str, list[float]] = {}
            for hu, spacing in zip(volume.slices, volume.spacings_mm, strict=True):
                name = _which(hu, candidates)
                if name is None:
                    damaged += 1
                    self._judge_damaged(attempt, hu, spacing, datasets)
                    continue
                if name in owner:
                    raise WrongError(f"{name} is there twice, in {owner[name]} and {patient}")
                owner[name] = patient
                order.setdefault(intact[name].patient, []).append(intact[name].z_mm)
            if any(z_mm != sorted(z_mm) for z_mm in order.values()):
                raise WrongError(f"slices out of order: {order}")
        told = {path for paths in left_out.values() for path in paths}
        for name in sorted(intact.keys() - owner.keys()):
            if root / name not in told and not any(name in str(path) for path in told):
                raise WrongError(f"the intact file {name} is neither read nor left out by name")
            if not self._collides(attempt):
                reasons = [why for why, paths in left_out.items() if root / name in paths]
                raise WrongError(f"the intact file {name} is left out ({', '.join(reasons)})")
        self._judge_owners(owner, intact)
        missing = len(contents) - len(owner) - damaged
        if missing > len(told):
            raise WrongError(f"{missing} files are not read, and {len(told)} are left out by name")
        return TOLD if attempt.told else SAME

    def _judge_owners(self, owner: Mapping[str, str], intact: Mapping[str, Base]) -> None:
        homes: dict[str, set[str]] = {}
        for name, patient in owner.items():
            homes.setdefault(intact[name].patient, set()).add(patient)
        for patient, names in homes.items():
            if len(names) > 1:
                raise WrongError(f"the intact slices of {patient} are in {len(names)} patients")
        if len({min(names) for names in homes.values()}) < len(homes):
            raise WrongError("two people's intact slices are in one patient")

    def _collides(self, attempt: Attempt) -> bool:
        """Say whether the damage could make a file look like another one's copy or neighbour."""
        tags = [f"({group:04x},{element:04x})" for group, element in IDENTITY]
        said = " ".join(attempt.damage)
        return any(tag in said for tag in tags) or "folder: copies" in said or "move" in said

    def _judge_damaged(
        self,
        attempt: Attempt,
        hu: np.ndarray,
        spacing: tuple[float, float],
        datasets: Mapping[str, Dataset | None],
    ) -> None:
        """Compare a slice that is of no intact file with pydicom's values of the damaged ones."""
        if not np.isfinite(hu).all() or hu.min() < LOWEST_HU or hu.max() > HIGHEST_HU:
            raise WrongError(f"HU from {hu.min()} to {hu.max()}")
        if not all(0.05 <= float(value) <= 5 for value in spacing):
            raise WrongError(f"a pixel spacing of {spacing} mm")
        if _which(hu, {name: base.hu for name, base in self._files.items()}) is not None:
            return  # the damage did not concern its values
        if hu.min() > TOUCHABLE_HU or (hu > 3100).mean() > 0.4:
            raise WrongError(f"values of no CT: from {hu.min()} to {hu.max()}")
        closest = None
        for name, dataset in datasets.items():
            # Where pydicom gives up, the damage may be none to the pixels.
            judge = self._files[name].hu if dataset is None else dataset.hu
            if judge.shape != hu.shape:
                continue
            other = ~np.isclose(hu, judge, rtol=1e-5, atol=0.01)
            gone = other & (hu == AIR_HU)
            if (other & ~gone).any():
                continue
            tissue = gone & (judge > TOUCHABLE_HU) & (judge < HIGHEST_HU)
            if tissue.any() and not attempt.told:
                raise WrongError(f"{tissue.sum()} pixels of {name} were made air without a word")
            said = [] if dataset is None else [float(v) for v in dataset.get("PixelSpacing") or []]
            if said and not np.allclose(said, spacing, rtol=1e-6):
                raise WrongError(f"a pixel spacing of {spacing} mm, where the file says {said}")
            closest = name
        if closest is None:
            sees = {name: "nothing" if d is None else "others" for name, d in datasets.items()}
            raise WrongError(f"values that pydicom does not see in any damaged file ({sees})")


def _which(hu: np.ndarray, candidates: Mapping[str, np.ndarray]) -> str | None:
    """Return the file whose HU these are, but for values below air."""
    for name, other in candidates.items():
        if np.array_equal(np.where(other < LOWEST_HU, AIR_HU, other), hu):
            return name
    return None


def _read(
    attempt: Attempt, root: Path
) -> tuple[dict[str, Any], Mapping[str, tuple[Path, ...]], dict[str, Any]]:
    """Read a folder as the product does: its patients, what is left out, and what is said."""
    source = DicomSource(root)
    found = {patient: source.load(patient, None) for patient in source.ids()}
    summary = source.summary()
    if "Secret" in json.dumps(summary) or any("Secret" in told for told in attempt.told):
        raise WrongError("a person's name is in the summary or the log")
    for patient in source.ids():
        source.fingerprint(patient)
    return found, source.left_out_paths(), summary

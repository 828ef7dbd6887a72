"""What a source of patients is, and the pseudonyms under which patients are stored."""

import contextlib
import os
import secrets
import tempfile
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from physfed_ray.errors import PhysFedError

SALT_BYTES = 32
PSEUDONYM_BYTES = 6


class NoSliceError(PhysFedError):
    """None of a patient's slices can be used; ``reason`` says why, and names nobody."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Findings:
    """What was found when the pixels of slices were read: counts of slices by reason.

    Attributes:
        left_out: Slices that were left out, by why.
        notes: Slices that stay, by what was done to them.
    """

    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def sum(cls, parts: Iterable["Findings"]) -> "Findings":
        """Add up what was found in several patients."""
        left_out, notes = Counter[str](), Counter[str]()
        for part in parts:
            left_out.update(part.left_out)
            notes.update(part.notes)
        return cls(dict(sorted(left_out.items())), dict(sorted(notes.items())))

    def __str__(self) -> str:
        return "; ".join(
            f"{said}: {', '.join(f'{n} {why}' for why, n in counts.items())}"
            for said, counts in (("left out", self.left_out), ("noted", self.notes))
            if counts
        )


@dataclass(frozen=True)
class PatientVolume:
    """The CT slices of one patient, in the order in which they follow each other in the body.

    Attributes:
        id: The source's own id (a DICOM PatientID, or ``phantom-03``). It may name a person: it is
            never logged and never stored; use ``pseudonym``.
        slices: One (h, w) float32 array in HU per slice, first row and column at the top left.
            Slices may differ in shape.
        spacings_mm: Row and column spacing of each slice, mm.
        positions_mm: Position of each slice along the body's axis, mm.
        findings: What was left out or changed while they were read.
        low: The same slices at low dose, where they were measured; None where they are simulated.
    """

    id: str
    slices: tuple[np.ndarray, ...]
    spacings_mm: tuple[tuple[float, float], ...]
    positions_mm: tuple[float, ...]
    findings: Findings = field(default_factory=Findings)
    low: tuple[np.ndarray, ...] | None = None

    def __post_init__(self) -> None:
        if not len(self.slices) == len(self.spacings_mm) == len(self.positions_mm):
            raise ValueError("a volume needs one spacing and one position for each slice")
        if self.low is not None and [hu.shape for hu in self.low] != [
            hu.shape for hu in self.slices
        ]:
            raise ValueError("each slice needs its low dose on the same matrix")


class PatientSource(typing.Protocol):
    """Where patients come from: a folder of DICOM, pairs in it, or a generator of phantoms."""

    def ids(self) -> tuple[str, ...]:
        """Return the patients' ids in an order that is the same on every call and machine."""
        ...

    def slice_count(self, patient_id: str) -> int:
        """Return how many slices the patient has."""
        ...

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Return at most ``limit`` slices, evenly spaced over the patient (``None``: all)."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return what was found, kept and left out by reason: JSON-able, naming no patient."""
        ...

    def fingerprint(self, patient_id: str) -> str:
        """Return a hash of everything that the patient's volume depends on."""
        ...


@typing.runtime_checkable
class Measured(PatientSource, typing.Protocol):
    """A source of measured images, which know something of their scanner."""

    def scanner(self, patient_ids: Sequence[str]) -> Mapping[str, float]:
        """Return what is known of the scanner of some patients: lengths of a protocol, mm."""
        ...


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """Return at most ``limit`` of the indices 0 to ``count - 1``: the centres of equal parts."""
    if limit is None or limit >= count:
        return list(range(count))
    return [(2 * part + 1) * count // (2 * limit) for part in range(limit)]


def pseudonym(patient_id: str, salt: bytes) -> str:
    """Return 12 hex digits that stand for a patient and cannot be traced back without the salt."""
    key = blake2b(salt, digest_size=SALT_BYTES).digest()
    return blake2b(patient_id.encode(), key=key, digest_size=PSEUDONYM_BYTES).hexdigest()


def user_salt() -> bytes:
    """Return the user's secret salt, drawn once and kept where only the user can read it.

    The environment variable ``PHYSFED_SALT`` overrides the file ``~/.cache/physfed_ray/salt``, so
    that several machines can agree on pseudonyms.
    """
    if given := os.environ.get("PHYSFED_SALT"):
        return given.encode()
    path = Path("~/.cache/physfed_ray/salt").expanduser()
    if not path.is_file():
        _write_once(path, secrets.token_hex(SALT_BYTES))
    return path.read_bytes()


def _write_once(path: Path, text: str) -> None:
    """Create a file of mode 0600 whole; the first of several processes wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)

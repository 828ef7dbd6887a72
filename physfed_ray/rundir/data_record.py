"""``data.json``: which data set a run was made of, so that no two data sets are taken for one.

Two hashes say that. ``patients`` is over whose full-dose images, by their content, lie in which
split and client; ``scans`` is over every pixel that the networks see. Neither depends on where the
cache lies, on the salt of the pseudonyms, or on what a method needs beside the images. Both depend
on the seed: it deals the patients out, and draws the noise.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from physfed_ray.errors import DamagedError
from physfed_ray.rundir.recorded_files import cure_of
from physfed_ray.rundir.run_directory import RunDirectory

DATA_FILE = "data.json"
NAMED = 3
"""Pseudonyms that a message spells out."""


class DataRecord(BaseModel):
    """What identifies a prepared data set.

    Attributes:
        format: Version of this file's layout.
        seed: The experiment's.
        patients: Hash of who is dealt to whom: fingerprint and number of slices of every patient of
            every split and client.
        scans: Hash of the images of every split and client.
        source: Hash of all patients that were there to be dealt out; empty for phantoms, which
            follow from the seed.
        dealt: Pseudonyms, by ``train CLIENT``, ``validation`` and ``test``.
        made_with: The code, the libraries and the device that made the scans.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    seed: int
    patients: str
    scans: str
    source: str
    dealt: dict[str, tuple[str, ...]]
    made_with: dict[str, str]

    def same_machine_aside(self, other: "DataRecord") -> bool:
        """Say whether two data sets are one, but perhaps for the last bits of other machines."""
        alike = (self.patients, self.made_with) == (other.patients, other.made_with)
        return self.scans == other.scans or alike


def write_record(directory: RunDirectory, record: DataRecord) -> None:
    """Write the record into a run directory, whole or not at all."""
    directory.write_json(DATA_FILE, record.model_dump(mode="json"))


def read_record(directory: RunDirectory) -> DataRecord | None:
    """Read the record of a run directory; None where an earlier version wrote none.

    Raises:
        DamagedError: It is not as it was written.
    """
    if not directory.has(DATA_FILE):
        return None
    try:
        return DataRecord.model_validate(directory.read_json(DATA_FILE))
    except ValidationError:
        raise DamagedError(f"{directory.root}/{DATA_FILE}", cure_of(DATA_FILE)) from None


def difference(before: DataRecord, now: DataRecord) -> str:
    """Say in what two data sets of one seed differ; empty where they are the same."""
    if before.same_machine_aside(now):
        return ""
    if before.seed != now.seed:
        return f"the seed is {now.seed} and was {before.seed}"
    moved = [
        words
        for split in dict.fromkeys((*before.dealt, *now.dealt))
        if (words := _moved(split, before.dealt.get(split, ()), now.dealt.get(split, ())))
    ]
    if moved:
        more = f"; and {len(moved) - 4} more groups" if len(moved) > 4 else ""
        return "; ".join(moved[:4]) + more + _salt(before, now)
    if before.patients != now.patients:
        return "the patients are the same, but not their images, or not as many of their slices"
    keys = dict.fromkeys((*before.made_with, *now.made_with))
    changed = [
        f"{key} {before.made_with.get(key, '–')} -> {now.made_with.get(key, '–')}"
        for key in keys
        if before.made_with.get(key) != now.made_with.get(key)
    ]
    words = "; ".join(changed)
    return f"the patients are the same, but they were scanned by another version ({words})"


def difference_over_seeds(first: DataRecord, other: DataRecord) -> str:
    """Say in what the patients of two seeds differ that were to be dealt from the same ones.

    The seed deals patients out where the experiment does not list them, and it makes phantoms. So
    two seeds may well have different test patients; but they draw them from the same source.
    """
    if first.source == other.source or first.dealt == other.dealt:
        return ""
    return "their source did not hold the same patients"


def hidden(patients: Iterable[str]) -> str:
    """Return a few pseudonyms, and how many more there are."""
    names = sorted(patients)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _moved(split: str, before: Sequence[str], now: Sequence[str]) -> str:
    gone, new = set(before) - set(now), set(now) - set(before)
    parts = [
        f"{len(names)} {what} ({hidden(names)})"
        for names, what in ((gone, "removed"), (new, "added"))
        if names
    ]
    return f"{split}: patients {' and '.join(parts)}" if parts else ""


def _salt(before: DataRecord, now: DataRecord) -> str:
    def all_of(dealt: Mapping[str, Sequence[str]]) -> set[str]:
        return {patient for patients in dealt.values() for patient in patients}

    if all_of(before.dealt) & all_of(now.dealt):
        return ""
    return "; patients are told apart by pseudonym, which PHYSFED_SALT decides"

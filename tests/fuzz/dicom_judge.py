"""What the reader may make of a folder with damaged files: the rules by which it is judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from physfed_ray.data.patient import PatientVolume
from tests.fuzz.dicom_files import Base, Seen, seen_by_pydicom
from tests.fuzz.harness import SAME, TOLD, Attempt, WrongError

AIR_HU = -1000.0
LOWEST_HU, HIGHEST_HU = -1024.0, 30_710.0
TOUCHABLE_HU = -200.0
"""What may become air without a word lies below: no tissue but lung does, and the base has none."""
SPACINGS_MM = 0.05, 5.0
IDENTITY = {
    (0x0008, 0x0018), (0x0010, 0x0010), (0x0010, 0x0020), (0x0010, 0x0030), (0x0010, 0x0040),
    (0x0020, 0x000D), (0x0020, 0x000E), (0x0020, 0x0013), (0x0020, 0x0032), (0x0020, 0x0037),
    (0x0020, 0x0052), (0x0020, 0x1041), (0x0020, 0x0012), (0x0008, 0x0020), (0x0020, 0x0011),
}  # fmt: skip
"""Tags by which files are grouped: a file with another one's may cost that one its place, aloud."""
Slice = tuple[str, int]
"""A file's name, and the number of the slice in it."""


@dataclass(frozen=True)
class Folder:
    """A folder with damaged files.

    Attributes:
        attempt: What was done to it, and what the product said of it.
        root: The folder.
        bases: The undamaged files by name, of which ``contents`` were made.
        contents: What lies in the files now.
        left_out: Paths that the product named, by reason.
    """

    attempt: Attempt
    root: Path
    bases: Mapping[str, Base]
    contents: Mapping[str, bytes]
    left_out: Mapping[str, tuple[Path, ...]]

    @cached_property
    def intact(self) -> dict[str, Base]:
        """The files that nobody damaged."""
        return {n: self.bases[n] for n, c in self.contents.items() if c == self.bases[n].content}

    @cached_property
    def damaged(self) -> dict[str, list[Seen]]:
        """What pydicom sees in the others; where it sees nothing, what they were before."""
        judged = {}
        for name in self.contents.keys() - self.intact.keys():
            seen = seen_by_pydicom(self.contents[name])
            judged[name] = seen or [Seen(hu, ()) for hu in self.bases[name].hu]
        return judged

    def judge(self, found: Mapping[str, PatientVolume]) -> str:
        """Return ``same`` or ``told``.

        Raises:
            WrongError: The product erred, or kept quiet.
        """
        owners: dict[Slice, str] = {}
        others = 0
        for patient, volume in found.items():
            places: dict[str, list[float]] = {}
            for hu, spacing in zip(volume.slices, volume.spacings_mm, strict=True):
                place = _which(hu, self.intact)
                if place is None:
                    others += 1
                    self._judge_damaged(hu, spacing)
                    continue
                if place in owners and "swap (7fe0,0010)" in self.attempt.damage:
                    others += 1
                    continue
                if place in owners:
                    raise WrongError(f"{place} is there twice, in {owners[place]} and {patient}")
                owners[place] = patient
                base = self.intact[place[0]]
                places.setdefault(base.patient, []).append(base.z_mm[place[1]])
            if any(z_mm != sorted(z_mm) for z_mm in places.values()):
                raise WrongError(f"slices out of order: {places}")
        self._judge_owners(owners)
        self._judge_lost(owners, others)
        return TOLD if self.attempt.told else SAME

    def _judge_owners(self, owners: Mapping[Slice, str]) -> None:
        homes: dict[str, set[str]] = {}
        for (name, _), patient in owners.items():
            homes.setdefault(self.bases[name].patient, set()).add(patient)
        for patient, names in homes.items():
            if len(names) > 1:
                raise WrongError(f"the intact slices of {patient} are in {len(names)} patients")
        if len({min(names) for names in homes.values()}) < len(homes):
            raise WrongError("two people's intact slices are in one patient")

    def _judge_lost(self, owners: Mapping[Slice, str], others: int) -> None:
        """Everything that lies in the folder is read, or left out by name, and for a reason."""
        told = {path for paths in self.left_out.values() for path in paths}
        for name, base in self.intact.items():
            if all((name, index) in owners for index in range(len(base.hu))):
                continue
            if not any(Path(name).name in str(path) for path in told):
                raise WrongError(f"the intact file {name} is neither read nor left out by name")
            if not self._collides():
                reasons = [why for why, paths in self.left_out.items() if self.root / name in paths]
                raise WrongError(f"the intact file {name} is left out ({', '.join(reasons)})")
        slices = sum(len(self.bases[name].hu) for name in self.contents)
        missing = slices - len(owners) - others
        if missing > sum(self._slices_in(path) for path in told):
            raise WrongError(f"{missing} slices are not read, and {len(told)} files are left out")

    def _slices_in(self, path: Path) -> int:
        """Return how many slices a file may have held; one under another name, any of them."""
        if not path.is_relative_to(self.root):
            return 1
        base = self.bases.get(path.relative_to(self.root).as_posix())
        return 3 if base is None else len(base.hu)

    def _collides(self) -> bool:
        """Say whether the damage could make a file look like another one's copy or neighbour."""
        tags = [f"({group:04x},{element:04x})" for group, element in IDENTITY]
        said = " ".join(self.attempt.damage)
        return any(tag in said for tag in tags) or "folder: copies" in said or "move" in said

    def _judge_damaged(self, hu: np.ndarray, spacing: tuple[float, float]) -> None:
        """Compare a slice that is of no intact file with what pydicom sees in the damaged ones."""
        if not np.isfinite(hu).all() or hu.min() < LOWEST_HU or hu.max() > HIGHEST_HU:
            raise WrongError(f"HU from {hu.min()} to {hu.max()}")
        if not all(SPACINGS_MM[0] <= float(value) <= SPACINGS_MM[1] for value in spacing):
            raise WrongError(f"a pixel spacing of {spacing} mm")
        if hu.min() > TOUCHABLE_HU or (hu > 3100).mean() > 0.4:
            raise WrongError(f"values of no CT: from {hu.min()} to {hu.max()}")
        fits = [seen for slices in self.damaged.values() for seen in slices if _fits(hu, seen.hu)]
        if not fits:
            raise WrongError(f"values that are in none of {sorted(self.damaged)}")
        told = bool(self.attempt.told)
        if not (told or any(not _hides_tissue(hu, seen.hu) for seen in fits)):
            raise WrongError("tissue was made air without a word")
        if not any(not s.spacing_mm or np.allclose(s.spacing_mm, spacing) for s in fits):
            raise WrongError(f"a pixel spacing of {spacing} mm, not {fits[0].spacing_mm}")


def _which(hu: np.ndarray, files: Mapping[str, Base]) -> Slice | None:
    """Return the slice whose HU these are."""
    for name, base in files.items():
        for index, image in enumerate(base.hu):
            if np.array_equal(image, hu):
                return name, index
    return None


def _fits(hu: np.ndarray, seen: np.ndarray) -> bool:
    """Say whether values are those that pydicom sees, but for some that became air."""
    if hu.shape != seen.shape:
        return False
    return bool((np.isclose(hu, seen, rtol=1e-5, atol=0.01) | (hu == AIR_HU)).all())


def _hides_tissue(hu: np.ndarray, seen: np.ndarray) -> bool:
    """Say whether what became air could be a body's."""
    gone = (hu == AIR_HU) & ~np.isclose(hu, seen, rtol=1e-5, atol=0.01)
    return bool((gone & (seen > TOUCHABLE_HU) & (seen < HIGHEST_HU)).any())

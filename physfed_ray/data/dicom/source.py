"""Patients from any folder tree of CT DICOM files.

Kept are original axial CT slices with a Hounsfield scale; ``headers`` says what is not, ``people``
whose they are, and ``series`` groups and orders them. A tilted gantry's slices are kept as they
were taken, in their own plane. What is left out is counted by reason, and one bad file never stops
the rest.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from physfed_ray.data.dicom.files import (
    INDEX,
    quiet_pydicom,
)
from physfed_ray.data.dicom.frames import read_image
from physfed_ray.data.dicom.headers import LeftOutFrame, SliceHeader, read_headers
from physfed_ray.data.dicom.listing import folder_of, list_folder, missing_from_index
from physfed_ray.data.dicom.reasons import LeftOut
from physfed_ray.data.dicom.series import arrange
from physfed_ray.data.left_out import left_out_words
from physfed_ray.data.patient import Findings, NoSliceError, PatientVolume, evenly_spaced
from physfed_ray.errors import PhysFedError

VERSION = 3
"""Part of every fingerprint: raise it when the same files give other volumes."""
THREADS = 8
"""Headers are small: on network drives the time goes into waiting."""
NUMBERS_NAMED = 20
"""Left-out files that the summary names by number, per reason."""

_Place = tuple[int, int | None]
"""A file's number, and a frame of it."""

logger = logging.getLogger(__name__)


class DicomSource:
    """The usable CT patients of a folder tree (or of the folder in which a DICOMDIR lies).

    A patient is known by its PatientID, or by the folder where that is blank; ``people`` has the
    rules. Paths may carry names, so the summary gives left-out files as their number in the sorted
    listing of the folder; ``left_out_paths`` gives the paths, to be shown to the user and not
    stored.
    """

    key = "data.source.dicom"
    wanted = "original axial CT images"

    def __init__(
        self,
        root: Path | str,
        min_slices: int = 1,
        *,
        lossy: bool = False,
        derived: bool = False,
    ) -> None:
        """Read every file's header.

        Args:
            root: A folder, or a DICOMDIR in it.
            min_slices: Patients with fewer usable slices are left out.
            lossy: Let in what a compression has changed.
            derived: Let in what was computed from other images.

        Raises:
            PhysFedError: The folder is missing, or holds nothing usable.
        """
        root = Path(root)
        if not root.exists():
            raise PhysFedError(f"The DICOM folder {root} does not exist; correct {self.key}.")
        root = folder_of(root)
        listing = list_folder(root)
        self._files, self._skipped = listing.files, listing.skipped
        self._let_in = {"lossy": lossy, "derived": derived}
        # By reason, files by their number; of a file with several frames, each frame by itself.
        self._left_out: dict[str, set[_Place]] = defaultdict(set)
        self._notes: dict[str, set[_Place]] = defaultdict(set)
        self._missing = 0
        headers = self._read_headers()
        with quiet_pydicom():
            folder = root if root.is_dir() else root.parent
            self._patients, dropped = self._arrange(headers, min_slices, folder)
        for reason, slices in dropped.items():
            self._left_out[reason].update((h.number, h.frame_index) for h in slices)
        for header in chain.from_iterable(self._patients.values()):
            self._note(header)
        if not self._patients:
            raise PhysFedError(
                f"No usable CT slice is in {root}: {self._counted()}; "
                f"point {self.key} at {self.wanted}."
            )
        logger.info("read DICOM headers: %s", self._counted())

    def ids(self) -> tuple[str, ...]:
        """Return the patients' ids, sorted."""
        return tuple(self._patients)

    def slice_count(self, patient_id: str) -> int:
        """Return how many usable slices the patient has."""
        return len(self._slices(patient_id))

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Read at most ``limit`` slices, evenly spaced; those that cannot be used are left out.

        Raises:
            NoSliceError: None of them can be used.
        """
        headers = self._slices(patient_id)
        images, kept, findings = [], [], []
        with quiet_pydicom():
            for index in evenly_spaced(len(headers), limit):
                hu, found = self._read(headers[index])
                findings.append(found)
                if hu is not None:
                    images.append(hu)
                    kept.append(headers[index])
        return self._volume(patient_id, images, kept, findings)

    def summary(self) -> dict[str, Any]:
        """Return the counts of what was found, kept and left out, and why; no paths, no names."""
        series = {(h.patient, h.study, h.series) for hs in self._patients.values() for h in hs}
        return {
            "kind": "dicom",
            "files": len(self._files),
            "patients": len(self._patients),
            "series": len(series),
            "slices": sum(map(len, self._patients.values())),
            "left_out": self._left_out_counts(),
            "notes": {note: len(files) for note, files in sorted(self._notes.items())},
            "left_out_file_numbers": {
                reason: _file_numbers(places)[:NUMBERS_NAMED]
                for reason, places in sorted(self._left_out.items())
            },
            "missing_from_dicomdir": self._missing,
        }

    def left_out_paths(self) -> Mapping[str, tuple[Path, ...]]:
        """Return the left-out files by reason, for the user's eyes: paths may name patients."""
        files = {
            reason: tuple(self._files[number - 1] for number in _file_numbers(places))
            for reason, places in self._left_out.items()
        }
        return dict(sorted({**files, **self._skipped}.items()))

    def fingerprint(self, patient_id: str) -> str:
        """Return a hash of the bytes of the patient's files, each once, and of their order."""
        return self._hash_files(self._slices(patient_id))

    def _hash_files(self, headers: Sequence[SliceHeader]) -> str:
        digest = blake2b(f"dicom {VERSION}".encode(), digest_size=16)
        places: dict[Path, int] = {}
        for header in headers:
            if header.path not in places:
                content = header.path.read_bytes()
                digest.update(len(content).to_bytes(8, "big"))
                digest.update(content)
            place = places.setdefault(header.path, len(places))
            if header.frame_index is not None:
                digest.update(f"file {place}, frame {header.frame_index}".encode())
        return digest.hexdigest()

    def _read_headers(self) -> list[SliceHeader]:
        def read(number: int, path: Path) -> list[SliceHeader | LeftOutFrame] | LeftOut:
            try:
                return read_headers(path, number, **self._let_in)
            except LeftOut as left_out:
                return left_out

        headers: list[SliceHeader] = []
        with quiet_pydicom(), ThreadPoolExecutor(THREADS) as pool:
            numbers = range(1, len(self._files) + 1)
            for number, result in zip(numbers, pool.map(read, numbers, self._files), strict=True):
                if isinstance(result, LeftOut):
                    self._left_out[str(result)].add((number, None))
                    if str(result) == INDEX:
                        self._missing += missing_from_index(self._files[number - 1], self._files)
                    continue
                for entry in result:
                    if isinstance(entry, SliceHeader):
                        headers.append(entry)
                    else:
                        self._left_out[entry.reason].add((number, entry.index))
        return headers

    def _arrange(
        self, headers: Sequence[SliceHeader], min_slices: int, folder: Path
    ) -> tuple[dict[str, tuple[SliceHeader, ...]], Mapping[str, Sequence[SliceHeader]]]:
        """Return each patient's slices in order, and what is left out by reason."""
        return arrange(headers, min_slices, folder)

    def _read(self, header: SliceHeader) -> tuple[np.ndarray | None, Findings]:
        """Read a slice, and say what was found; one that cannot be used is None."""
        try:
            hu, notes = read_image(header.path, header.frame_index)
        except LeftOut as left_out:
            return None, self._leave_out(str(left_out), header)
        self._note(header, notes)
        return hu, Findings(notes=dict.fromkeys(notes, 1))

    def _leave_out(self, reason: str, header: SliceHeader) -> Findings:
        self._left_out[reason].add((header.number, header.frame_index))
        logger.info("file %d: %s", header.number, reason)
        return Findings(left_out={reason: 1})

    def _note(self, header: SliceHeader, notes: Iterable[str] = ()) -> None:
        for note in (*header.notes, *notes):
            self._notes[note].add((header.number, header.frame_index))

    def _volume(
        self,
        patient_id: str,
        images: Sequence[np.ndarray],
        headers: Sequence[SliceHeader],
        findings: Iterable[Findings],
    ) -> PatientVolume:
        """Return what was read of a patient.

        Raises:
            NoSliceError: It is nothing.
        """
        found = Findings.sum(findings)
        if not images:
            first = self._slices(patient_id)[0].number
            raise NoSliceError(
                f"No slice of a patient decodes to Hounsfield units (file {first} of "
                f"{len(self._files)} in the sorted listing and its neighbours, {found}); export "
                "them again or remove them.",
                str(found),
            )
        return PatientVolume(
            patient_id,
            tuple(images),
            tuple(header.spacing_mm for header in headers),
            tuple(header.position_mm for header in headers),
            found,
        )

    def _slices(self, patient_id: str) -> tuple[SliceHeader, ...]:
        if patient_id not in self._patients:
            near = get_close_matches(patient_id, self._patients, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see `physfed describe` for the data."
            raise PhysFedError(f"There is no patient {patient_id!r} in the DICOM folder: {hint}")
        return self._patients[patient_id]

    def _left_out_counts(self) -> dict[str, int]:
        counts = {reason: len(files) for reason, files in self._left_out.items()}
        counts |= {reason: len(paths) for reason, paths in self._skipped.items()}
        return dict(sorted(counts.items()))

    def _counted(self) -> str:
        counts = {"left_out": self._left_out_counts(), "missing_from_dicomdir": self._missing}
        return f"{len(self._files)} files, left out: {left_out_words(counts) or 'none'}"


def _file_numbers(places: Iterable[_Place]) -> list[int]:
    return sorted({number for number, _ in places})

"""Patients from any folder tree of CT DICOM files.

Kept are original axial CT slices with a Hounsfield scale; ``headers`` says what is not, ``people``
whose they are, and ``series`` groups and orders them. A tilted gantry's slices are kept as they
were taken, in their own plane. What is left out is counted by reason, and one bad file never stops
the rest.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

from physfed_ray.data.dicom.files import (
    INDEX,
    quiet_pydicom,
    read_slice,
)
from physfed_ray.data.dicom.headers import SliceHeader, read_header
from physfed_ray.data.dicom.listing import folder_of, list_folder, missing_from_index
from physfed_ray.data.dicom.reasons import LeftOut
from physfed_ray.data.dicom.series import arrange
from physfed_ray.data.left_out import left_out_words
from physfed_ray.data.patient import Findings, NoSliceError, PatientVolume, evenly_spaced
from physfed_ray.errors import PhysFedError

VERSION = 2
"""Part of every fingerprint: raise it when the same files give other volumes."""
THREADS = 8
"""Headers are small: on network drives the time goes into waiting."""
NUMBERS_NAMED = 20
"""Left-out files that the summary names by number, per reason."""

logger = logging.getLogger(__name__)


class DicomSource:
    """The usable CT patients of a folder tree (or of the folder in which a DICOMDIR lies).

    A patient is known by its PatientID, or by the folder where that is blank; ``people`` has the
    rules. Paths may carry names, so the summary gives left-out files as their number in the sorted
    listing of the folder; ``left_out_paths`` gives the paths, to be shown to the user and not
    stored.
    """

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
            raise PhysFedError(
                f"The DICOM folder {root} does not exist; correct data.source.dicom."
            )
        root = folder_of(root)
        listing = list_folder(root)
        self._files, self._skipped = listing.files, listing.skipped
        self._let_in = {"lossy": lossy, "derived": derived}
        self._left_out: dict[str, set[int]] = defaultdict(set)
        self._notes: dict[str, set[int]] = defaultdict(set)
        self._missing = 0
        headers = self._read_headers()
        with quiet_pydicom():
            folder = root if root.is_dir() else root.parent
            self._patients, dropped = arrange(headers, min_slices, folder)
        for reason, slices in dropped.items():
            self._left_out[reason].update(header.number for header in slices)
        for header in chain.from_iterable(self._patients.values()):
            self._note(header)
        if not self._patients:
            raise PhysFedError(
                f"No usable CT slice is in {root}: {self._counted()}; "
                "point data.source.dicom at original axial CT images."
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
                header = headers[index]
                try:
                    hu, notes = read_slice(header.path)
                except LeftOut as left_out:
                    self._left_out[str(left_out)].add(header.number)
                    findings.append(Findings(left_out={str(left_out): 1}))
                    logger.info("file %d: %s", header.number, left_out)
                else:
                    images.append(hu)
                    kept.append(header)
                    self._note(header, notes)
                    findings.append(Findings(notes=dict.fromkeys(notes, 1)))
        found = Findings.sum(findings)
        if not images:
            raise NoSliceError(
                f"No slice of a patient decodes to Hounsfield units (file {headers[0].number} of "
                f"{len(self._files)} in the sorted listing and its neighbours, {found}); export "
                "them again or remove them.",
                str(found),
            )
        return PatientVolume(
            patient_id,
            tuple(images),
            tuple(header.spacing_mm for header in kept),
            tuple(header.position_mm for header in kept),
            found,
        )

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
                reason: sorted(files)[:NUMBERS_NAMED]
                for reason, files in sorted(self._left_out.items())
            },
            "missing_from_dicomdir": self._missing,
        }

    def left_out_paths(self) -> Mapping[str, tuple[Path, ...]]:
        """Return the left-out files by reason, for the user's eyes: paths may name patients."""
        files = {
            reason: tuple(self._files[number - 1] for number in sorted(numbers))
            for reason, numbers in self._left_out.items()
        }
        return dict(sorted({**files, **self._skipped}.items()))

    def fingerprint(self, patient_id: str) -> str:
        """Return a hash of the bytes of the patient's files, in their order."""
        digest = blake2b(f"dicom {VERSION}".encode(), digest_size=16)
        for header in self._slices(patient_id):
            content = header.path.read_bytes()
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)
        return digest.hexdigest()

    def _read_headers(self) -> list[SliceHeader]:
        def read(number: int, path: Path) -> SliceHeader | LeftOut:
            try:
                return read_header(path, number, **self._let_in)
            except LeftOut as left_out:
                return left_out

        headers = []
        with quiet_pydicom(), ThreadPoolExecutor(THREADS) as pool:
            numbers = range(1, len(self._files) + 1)
            for number, result in zip(numbers, pool.map(read, numbers, self._files), strict=True):
                if isinstance(result, SliceHeader):
                    headers.append(result)
                    continue
                self._left_out[str(result)].add(number)
                if str(result) == INDEX:
                    self._missing += missing_from_index(self._files[number - 1], self._files)
        return headers

    def _note(self, header: SliceHeader, notes: Iterable[str] = ()) -> None:
        for note in (*header.notes, *notes):
            self._notes[note].add(header.number)

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

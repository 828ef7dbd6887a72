"""Patients from any folder tree of CT DICOM files.

Kept are original axial CT slices with a Hounsfield scale; ``dicom_headers`` says what is not.
``dicom_series`` groups and orders them. A tilted gantry's slices are kept as they were taken, in
their own plane. What is left out is counted by reason, and one bad file never stops the rest.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from physfed_ray.data.dicom.files import (
    INDEX,
    LeftOut,
    list_files,
    missing_from_index,
    quiet_pydicom,
    read_hu,
)
from physfed_ray.data.dicom.frames import read_frame_hu
from physfed_ray.data.dicom.headers import LeftOutFrame, SliceHeader, read_headers
from physfed_ray.data.dicom.series import arrange
from physfed_ray.data.patient import PatientVolume, evenly_spaced
from physfed_ray.errors import PhysFedError

VERSION = 1
"""Part of every fingerprint: raise it when the same files give other volumes."""
THREADS = 8
"""Headers are small: on network drives the time goes into waiting."""
NUMBERS_NAMED = 20
"""Left-out files that the summary names by number, per reason."""

logger = logging.getLogger(__name__)


class DicomSource:
    """The usable CT patients of a folder tree (or of the folder in which a DICOMDIR lies).

    A patient is known by its PatientID; where that is blank, each study counts as one patient.
    Paths may carry names, so the summary gives left-out files as their number in the sorted listing
    of the folder; ``left_out_paths`` gives the paths, to be shown to the user and not stored.
    """

    key = "data.source.dicom"
    wanted = "original axial CT images"

    def __init__(self, root: Path | str, min_slices: int = 1) -> None:
        """Read every file's header.

        Args:
            root: A folder, or a DICOMDIR in it.
            min_slices: Patients with fewer usable slices are left out.

        Raises:
            PhysFedError: The folder is missing, or holds nothing usable.
        """
        root = Path(root)
        if not root.exists():
            raise PhysFedError(f"The DICOM folder {root} does not exist; correct {self.key}.")
        if root.name.upper() == "DICOMDIR":
            root = root.parent
        self._root = root
        self._files = tuple(list_files(root))
        # By reason, files by their number; of a file that has usable frames, those without use.
        self._left_out: dict[str, set[tuple[int, int | None]]] = defaultdict(set)
        self._missing = 0
        headers = self._read_headers()
        self._patients, dropped = self._arrange(headers, min_slices)
        for reason, slices in dropped.items():
            self._left_out[reason].update((h.number, h.frame_index) for h in slices)
        if not self._patients:
            raise PhysFedError(
                f"No usable CT slice is in {root}: {self._describe_left_out()}; "
                f"point {self.key} at {self.wanted}."
            )
        logger.info("read DICOM headers: %s", self._describe_left_out())

    def ids(self) -> tuple[str, ...]:
        """Return the patients' ids, sorted."""
        return tuple(self._patients)

    def slice_count(self, patient_id: str) -> int:
        """Return how many usable slices the patient has."""
        return len(self._slices(patient_id))

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Read at most ``limit`` slices, evenly spaced; those that do not decode are left out.

        Raises:
            PhysFedError: None of them decodes.
        """
        headers = self._slices(patient_id)
        images, kept = [], []
        with quiet_pydicom():
            for index in evenly_spaced(len(headers), limit):
                header = headers[index]
                if (image := self._read(header)) is not None:
                    images.append(image)
                    kept.append(header)
        if not images:
            raise PhysFedError(self._nothing_decodes(headers[0]))
        return self._volume(patient_id, images, kept)

    def summary(self) -> dict[str, Any]:
        """Return the counts of what was found, kept and left out, and why; no paths, no names."""
        series = {(h.patient, h.study, h.series) for hs in self._patients.values() for h in hs}
        return {
            "kind": "dicom",
            "files": len(self._files),
            "patients": len(self._patients),
            "series": len(series),
            "slices": sum(map(len, self._patients.values())),
            "left_out": {reason: len(files) for reason, files in sorted(self._left_out.items())},
            "left_out_file_numbers": {
                reason: _file_numbers(files)[:NUMBERS_NAMED]
                for reason, files in sorted(self._left_out.items())
            },
            "missing_from_dicomdir": self._missing,
        }

    def left_out_paths(self) -> Mapping[str, tuple[Path, ...]]:
        """Return the left-out files by reason, for the user's eyes: paths may name patients."""
        return {
            reason: tuple(self._files[number - 1] for number in _file_numbers(files))
            for reason, files in sorted(self._left_out.items())
        }

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
                return read_headers(path, number)
            except LeftOut as left_out:
                return left_out

        headers: list[SliceHeader] = []
        with quiet_pydicom(), ThreadPoolExecutor(THREADS) as pool:
            numbers = range(1, len(self._files) + 1)
            for number, result in zip(numbers, pool.map(read, numbers, self._files), strict=True):
                if not isinstance(result, LeftOut):
                    headers.extend(entry for entry in result if isinstance(entry, SliceHeader))
                    for entry in result:
                        if isinstance(entry, LeftOutFrame):
                            self._left_out[entry.reason].add((number, entry.index))
                    continue
                self._left_out[str(result)].add((number, None))
                if str(result) == INDEX:
                    self._missing += missing_from_index(self._files[number - 1])
        return headers

    def _arrange(
        self, headers: Sequence[SliceHeader], min_slices: int
    ) -> tuple[dict[str, tuple[SliceHeader, ...]], Mapping[str, Sequence[SliceHeader]]]:
        """Return each patient's slices in order, and what is left out by reason."""
        return arrange(headers, min_slices)

    def _read(self, header: SliceHeader) -> np.ndarray | None:
        """Read a slice; one that does not decode is left out, and None."""
        try:
            return read_slice(header)
        except LeftOut as left_out:
            self._leave_out(str(left_out), header)
            return None

    def _leave_out(self, reason: str, header: SliceHeader) -> None:
        self._left_out[reason].add((header.number, header.frame_index))
        logger.warning("file %d: %s", header.number, reason)

    def _nothing_decodes(self, first: SliceHeader) -> str:
        return (
            f"No slice of a patient decodes (file {first.number} of {len(self._files)} "
            "and its neighbours in the sorted listing); export them again or remove them."
        )

    def _volume(
        self, patient_id: str, images: Sequence[np.ndarray], headers: Sequence[SliceHeader]
    ) -> PatientVolume:
        return PatientVolume(
            patient_id,
            tuple(images),
            tuple(header.spacing_mm for header in headers),
            tuple(header.position_mm for header in headers),
        )

    def _slices(self, patient_id: str) -> tuple[SliceHeader, ...]:
        if patient_id not in self._patients:
            near = get_close_matches(patient_id, self._patients, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see `physfed describe` for the data."
            raise PhysFedError(f"There is no patient {patient_id!r} in the DICOM folder: {hint}")
        return self._patients[patient_id]

    def _describe_left_out(self) -> str:
        counts = {reason: len(files) for reason, files in sorted(self._left_out.items())}
        listed = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        return f"{len(self._files)} files, left out: {listed or 'none'}"


def read_slice(header: SliceHeader) -> np.ndarray:
    """Return a slice as ``files.read_hu`` does, from a file of its own or among frames."""
    if header.frame_index is None:
        return read_hu(header.path)
    return read_frame_hu(header.path, header.frame_index)


def _file_numbers(left_out: Iterable[tuple[int, int | None]]) -> list[int]:
    return sorted({number for number, _ in left_out})

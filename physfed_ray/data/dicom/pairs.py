"""Patients of whom full-dose and low-dose images were both measured, or delivered as such.

Nothing is simulated: a volume has the images of both doses, slice by slice. ``dicom.roles`` tells
the doses apart, ``dicom.pairing`` finds the partners.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from physfed_ray.ct.protocol import REFERENCE_SIZE
from physfed_ray.data.dicom.details import read_details
from physfed_ray.data.dicom.files import quiet_pydicom
from physfed_ray.data.dicom.frames import read_image
from physfed_ray.data.dicom.headers import SliceHeader
from physfed_ray.data.dicom.pairing import OTHER_GEOMETRY, Pair, pair
from physfed_ray.data.dicom.reasons import LeftOut
from physfed_ray.data.dicom.roles import Roles
from physfed_ray.data.dicom.source import THREADS, DicomSource
from physfed_ray.data.patient import Findings, PatientVolume, evenly_spaced

IDENTICAL = "low dose that is a copy of the full dose"
SWAPPED = "full dose that is noisier than the low dose"

SOFT_HU = (-200.0, 300.0)
"""Tissue in which the noise of two images is compared."""
NOISIER = 1.1
"""Beyond this ratio one image counts as noisier than another."""


class PairedSource(DicomSource):
    """The patients of a folder tree who have CT at full and at low dose.

    A patient is known by PatientID; where that differs between the doses by a word such as ``FD``
    and ``QD`` alone, by what is left without it.
    """

    key = "data.source.pairs"
    wanted = "original axial CT images of each patient at full and at low dose"

    def __init__(
        self,
        root: Path | str,
        min_slices: int = 1,
        full: str | None = None,
        low: str | None = None,
        *,
        lossy: bool = False,
        derived: bool = False,
    ) -> None:
        """Read every file's header, and one pair of images of each patient.

        Args:
            root: As of ``DicomSource``.
            min_slices: Patients with fewer pairs are left out.
            full: As of ``dicom.roles.Roles``.
            low: Likewise.
            lossy: As of ``DicomSource``.
            derived: Let in full-dose images that were computed from others. Low-dose ones always
                are let in: where noise was inserted, they are derived.

        Raises:
            PhysFedError: As of ``DicomSource``.
        """
        self._roles = Roles(full, low)
        self._low: dict[str, tuple[SliceHeader, ...]] = {}
        self._told: dict[str, int] = defaultdict(int)
        self._derived = derived
        super().__init__(root, min_slices, lossy=lossy, derived=True)
        self._compare_doses()

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Read at most ``limit`` pairs, evenly spaced; a slice that cannot be used costs its pair.

        Raises:
            NoSliceError: None of them can be used.
        """
        pairs = self._pairs(patient_id)
        images: list[tuple[np.ndarray, np.ndarray]] = []
        kept: list[SliceHeader] = []
        findings: list[Findings] = []
        with quiet_pydicom():
            for index in evenly_spaced(len(pairs), limit):
                full, low = pairs[index]
                (full_hu, of_full), (low_hu, of_low) = self._read(full), self._read(low)
                findings += [of_full, of_low]
                if full_hu is None or low_hu is None:
                    continue
                if full_hu.shape != low_hu.shape:
                    findings.append(self._leave_out(OTHER_GEOMETRY, full))
                    continue
                images.append((full_hu, low_hu))
                kept.append(full)
        return replace(
            self._volume(patient_id, [full for full, _ in images], kept, findings),
            low=tuple(low for _, low in images),
        )

    def summary(self) -> dict[str, Any]:
        """Return the counts, as ``DicomSource.summary``; a slice is a pair of images."""
        return super().summary() | {"kind": "pairs", "told": dict(self._told)}

    def fingerprint(self, patient_id: str) -> str:
        """Return a hash of the bytes of the patient's files at both doses, and of their order."""
        pairs = self._pairs(patient_id)
        digest = blake2b(b"pairs", digest_size=16)
        for slices in zip(*pairs, strict=True):
            digest.update(self._hash_files(slices).encode())
        return digest.hexdigest()

    def scanner(self, patient_ids: Sequence[str]) -> dict[str, float]:
        """Return what the headers of some patients say of their scanner, mm; medians.

        They say the pixel length of the 256 x 256 reference grid, and, where the scanner wrote
        them, the distances of the source and the detector from the centre.
        """
        said: dict[str, list[float]] = defaultdict(list)
        for patient in patient_ids:
            header = self._low[patient][0]
            details = read_details(header)
            sides = [n * mm for n, mm in zip(details.shape, header.spacing_mm, strict=True)]
            said["pixel_mm"].append(max(sides) / REFERENCE_SIZE)
            source, to_detector = details.source_mm, details.to_detector_mm
            if source and to_detector and to_detector > source > 0:
                said["source_mm"].append(source)
                said["detector_mm"].append(to_detector - source)
        return {name: round(median(values), 4) for name, values in said.items()}

    def _arrange(
        self, headers: Sequence[SliceHeader], min_slices: int, folder: Path
    ) -> tuple[dict[str, tuple[SliceHeader, ...]], Mapping[str, Sequence[SliceHeader]]]:
        paired = pair(headers, folder, self._roles, min_slices, derived=self._derived)
        for what, patients in paired.told.items():
            self._told[what] += patients
        self._low = {id: tuple(low for _, low in pairs) for id, pairs in paired.patients.items()}
        usable = {id: tuple(full for full, _ in pairs) for id, pairs in paired.patients.items()}
        return usable, {reason: slices for reason, slices in paired.left_out.items() if slices}

    def _pairs(self, patient_id: str) -> list[Pair]:
        return list(zip(self._slices(patient_id), self._low[patient_id], strict=True))

    def _compare_doses(self) -> None:
        """Look at the middle pair of each patient: is the low dose a copy, are roles swapped."""

        def look(patient: str) -> str | None:
            pairs = self._pairs(patient)
            try:
                full, low = (
                    read_image(header.path, header.frame_index)[0]
                    for header in pairs[len(pairs) // 2]
                )
            except (LeftOut, OSError):
                return None  # Reported where the patient is loaded.
            return suspicion(full, low)

        with quiet_pydicom(), ThreadPoolExecutor(THREADS) as pool:
            for suspected in pool.map(look, self.ids()):
                if suspected is not None:
                    self._told[suspected] += 1


def suspicion(full: np.ndarray, low: np.ndarray) -> str | None:
    """Return what looks wrong about a pair, (h, w) HU each; None where nothing does."""
    if full.shape != low.shape:
        return None
    if np.array_equal(full, low):
        return IDENTICAL
    soft = [(SOFT_HU[0] < hu) & (hu < SOFT_HU[1]) for hu in (full, low)]
    noises = [_noise(hu, soft[0] & soft[1]) for hu in (full, low)]
    return SWAPPED if noises[0] > NOISIER * noises[1] else None


def _noise(hu: np.ndarray, where: np.ndarray) -> float:
    """Return a robust noise level in HU: of second differences, which smooth tissue lacks."""
    seconds = hu[:, 2:] - 2 * hu[:, 1:-1] + hu[:, :-2]
    inside = where[:, 2:] & where[:, 1:-1] & where[:, :-2]
    return float(np.median(np.abs(seconds[inside]))) if inside.any() else 0.0

"""The slices of a surrogate study: patients and hosts on one grid, and the regions they show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from physfed_ray.data.anatomy import REGIONS
from physfed_ray.data.grid import place
from physfed_ray.data.patient import PatientSource
from physfed_ray.data.phantom import SMALLEST_SIZE, PhantomSource
from physfed_ray.experiment.data import Data
from physfed_ray.window import Window, normalise

FINER = 2
"""Pixels of a painted phantom along one of the image."""


@dataclass(frozen=True)
class Slices:
    """N slices.

    Attributes:
        hu: (N, n, n) float32.
        body: True on the body, (N, n, n).
        pixel_mm: Pixel length of each, mm, (N,).
        patients: Number of each one's patient; names stay where they were read.
        regions: Region of the body that each shows, "" where that is not known.
    """

    hu: np.ndarray
    body: np.ndarray
    pixel_mm: np.ndarray
    patients: tuple[int, ...]
    regions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.patients)


def as_images(hu: np.ndarray, window_hu: Window) -> Tensor:
    """Return slices (N, n, n) in HU as networks see them, (N, 1, n, n) float32 in [0, 1]."""
    return torch.from_numpy(normalise(hu, window_hu))[:, None]


def source_of(data: Data, seed: int) -> PatientSource:
    """Return where the patients come from.

    Args:
        data: Keys of the file; the source is ``phantom`` or ``dicom``.
        seed: Of phantoms.
    """
    phantom = data.source.phantom
    if phantom is not None:
        return phantoms(int(phantom.patients), phantom.slices, seed, data.image_size)
    from physfed_ray.data.dicom.source import DicomSource  # pydicom: only for those who read files

    assert data.source.dicom is not None  # what a SurrogateFile has checked
    return DicomSource(
        data.source.dicom,
        data.source.min_slices,
        lossy=data.source.lossy,
        derived=data.source.derived,
    )


def phantoms(patients: int, slices: int, seed: int, image_size: int) -> PhantomSource:
    """Return procedural patients for a grid, painted finer than it."""
    return PhantomSource(patients, slices, seed, max(SMALLEST_SIZE, FINER * image_size))


def read_slices(source: PatientSource, ids: Sequence[str], data: Data) -> Slices:
    """Read patients onto the grid.

    Args:
        source: Where they are.
        ids: Whom to read.
        data: ``image_size``, ``centre``, ``slices_per_patient``.

    Raises:
        PhysFedError: A patient cannot be read.
    """
    images, bodies, pixels, patients = [], [], [], []
    for number, patient in enumerate(ids):
        volume = source.load(patient, data.slices_per_patient)
        for hu, spacing in zip(volume.slices, volume.spacings_mm, strict=True):
            placed = place(hu, spacing, data.image_size, data.centre)
            found = placed.resample(1)
            images.append(found.image)
            bodies.append(found.body)
            pixels.append(placed.pixel_mm)
            patients.append(number)
    hu = np.stack(images)
    if isinstance(source, PhantomSource):
        regions = tuple(phantom_region(ids[number]) for number in patients)
    else:
        regions = tuple(map(seen_region, hu))
    return Slices(hu, np.stack(bodies), np.array(pixels), tuple(patients), regions)


def phantom_region(patient: str) -> str:
    """Return the region of a phantom: they are dealt out in turn."""
    names = list(REGIONS)
    return names[int(patient.rpartition("-")[2]) % len(names)]


def seen_region(hu: np.ndarray) -> str:
    """Return the region that the measured reporter names on a slice (n, n) in HU, or ""."""
    from physfed_ray.reports.measurements import measure, smooth  # SciPy
    from physfed_ray.reports.regions import name_region

    found = [measure(image) for image in smooth(hu[None])]
    return (found[0] is not None and name_region(found[0])) or ""

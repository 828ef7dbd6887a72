"""Procedural patients: CT volumes in HU that anyone can have, for demonstrations and tests."""

from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from physfed_ray.data.anatomy import REGIONS
from physfed_ray.data.anatomy.canvas import Region, render
from physfed_ray.data.patient import PatientVolume, evenly_spaced
from physfed_ray.errors import PhysFedError
from physfed_ray.seeds import generator

VERSION = "2"
"""Changes whenever the same arguments would give other images."""


SMALLEST_SIZE = 32
"""Pixels along a side that anatomy needs."""


class PhantomSource:
    """Procedural patients; regions are dealt out in turn.

    A patient depends on the seed, its own number and the size alone, not on how many others there
    are; its anatomy does not depend on the number of slices either.
    """

    def __init__(self, patients: int, slices: int, seed: int, size: int = 256) -> None:
        """Describe the patients; nothing is drawn yet.

        Args:
            patients: How many there are.
            slices: Slices of each, spread evenly over its region.
            seed: Seed of the whole collection.
            size: Pixels along each side of a slice.

        Raises:
            PhysFedError: If a number is too small.
        """
        for name, value, least in (
            ("patients", patients, 1),
            ("slices", slices, 1),
            ("size", size, SMALLEST_SIZE),
        ):
            if value < least:
                raise PhysFedError(
                    f"Phantoms need at least {least} {name}, not {value} (data.source.phantom)."
                )
        self._patients, self._slices, self._seed, self._size = patients, slices, seed, size

    def ids(self) -> tuple[str, ...]:
        """Return ``phantom-00``, ``phantom-01``, ..."""
        return tuple(_id(number) for number in range(self._patients))

    def slice_count(self, patient_id: str) -> int:
        """Return the number of slices, the same for every patient."""
        self._number(patient_id)
        return self._slices

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """Paint at most ``limit`` slices of the patient, evenly spaced over its region."""
        number = self._number(patient_id)
        kept = evenly_spaced(self._slices, limit)
        region = _patient(self._seed, number)
        spacing = region.field_mm / self._size
        heights = [(index + 0.5) / self._slices * region.length_mm for index in kept]
        images = tuple(
            render(region, height, self._size, self._stream(number, index))
            for index, height in zip(kept, heights, strict=True)
        )
        return PatientVolume(
            patient_id, images, ((spacing, spacing),) * len(images), tuple(heights)
        )

    def summary(self) -> dict[str, Any]:
        """Return how many patients of each region there are."""
        names = list(REGIONS)
        dealt = [names[number % len(names)] for number in range(self._patients)]
        return {
            "kind": "phantom",
            "patients": self._patients,
            "slices": self._patients * self._slices,
            "left_out": {},
            "regions": {name: dealt.count(name) for name in names if name in dealt},
        }

    def fingerprint(self, patient_id: str) -> str:
        """Return a hash of the generator's version and everything it is given."""
        parts = (VERSION, self._seed, self._number(patient_id), self._slices, self._size)
        return blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def _stream(self, number: int, index: int) -> np.random.Generator:
        """Return the random stream of one slice's noise."""
        return generator(self._seed, "phantom", number, "slice", index)

    def _number(self, patient_id: str) -> int:
        """Return the patient's number."""
        digits = patient_id.removeprefix("phantom-")
        number = int(digits) if digits.isascii() and digits.isdigit() else -1
        if not (0 <= number < self._patients and patient_id == _id(number)):
            raise PhysFedError(
                f"There is no phantom `{patient_id}`: they are called {_id(0)} to "
                f"{_id(self._patients - 1)}."
            )
        return number


def _id(number: int) -> str:
    return f"phantom-{number:02d}"


@lru_cache(maxsize=8)
def _patient(seed: int, number: int) -> Region:
    """Return the anatomy of patient ``number``."""
    regions = list(REGIONS.values())
    return regions[number % len(regions)](generator(seed, "phantom", number))

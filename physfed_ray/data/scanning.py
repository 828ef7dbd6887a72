"""Scanning: one patient under one client's protocol becomes a shard in the cache.

A patient whose low dose was measured is not scanned: the shard holds both doses as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.data.grid import Placed, place
from physfed_ray.data.patient import Findings, NoSliceError, PatientSource, PatientVolume
from physfed_ray.data.shards import (
    Front,
    Shard,
    ShardSettings,
    check_machine,
    field_path,
    front_path,
    shard_files,
    shard_path,
)
from physfed_ray.data.store import Scans, read_field, write_field, write_scans
from physfed_ray.device import torch_threads
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import SINOGRAM, Acquisition, field_of
from physfed_ray.seeds import generator
from physfed_ray.window import normalise

# A batch of sinograms must fit into memory: 1024 views x 768 bins are 3 MiB a slice.
SLICES_AT_ONCE = 16

# What 12 bits hold, as scanners do.
HU_RANGE = (-1024, 3071)

NOT_FINITE = "pixels that are not finite numbers"


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: it lies in the cache, or its patient is ``unusable`` and why."""

    shard: Shard
    unusable: str | None = None


class UnusablePatientError(Exception):
    """A patient cannot be used; the message gives the reason and no name."""


def do_shard(
    source: PatientSource,
    settings: ShardSettings,
    shard: Shard,
    cache_folder: Path,
) -> Outcome:
    """Load, scan, and put what is not there yet into the cache, each file atomically.

    Args:
        source: Where the patient comes from.
        settings: What all shards have in common.
        shard: What to make, with its fields.
        cache_folder: Where it is kept.

    Raises:
        PhysFedError: A step after loading fails, the patient's files have become unreachable, or
            this machine would give other bits than those that the shard is named for.
    """
    check_machine(settings)
    try:
        if shard.front is not None and all(
            file.is_file() for file in shard_files(cache_folder, shard.key, shard.fields)
        ):
            _make_images(settings, shard, shard.front, cache_folder)
            return Outcome(shard)
        volume = _placed(
            _GridJob(
                shard.patient.id,
                shard.patient.fingerprint,
                settings.slices_per_patient,
                settings.simulation.image_size,
                settings.centre,
                source,
            )
        )
        with torch_threads(1):  # so that the bits do not depend on who prepares a shard
            scans, made = _scanned(volume, settings, shard)
        own = shard_path(cache_folder, shard.key)
        if not own.is_file():
            write_scans(own, scans)
        for name, values in made.items():
            write_field(field_path(cache_folder, shard.key, name), values)
        if shard.front is not None:
            _make_images(settings, shard, shard.front, cache_folder)
    except UnusablePatientError as error:
        return Outcome(shard, str(error))
    except Exception as error:
        raise PhysFedError(f"{shard} failed: {_reason(error)}") from error
    return Outcome(shard)


def _make_images(settings: ShardSettings, shard: Shard, front: Front, cache_folder: Path) -> None:
    """Make the images of a front end of a shard's sinograms, which lie in the cache."""
    measured = read_field(field_path(cache_folder, shard.key, SINOGRAM.name))
    images = np.empty((len(measured), *2 * (settings.simulation.image_size,)), np.float32)
    device = settings.made_with["device"]
    for start in range(0, len(measured), SLICES_AT_ONCE):
        rows = slice(start, start + SLICES_AT_ONCE)
        hu = front.end.reconstruct(
            np.asarray(measured[rows], np.float32),
            shard.protocol,
            settings.simulation,
            front.choice,
            device=device,
        )
        images[rows] = normalise(hu, settings.window_hu)
    write_field(front_path(cache_folder, shard.key, front), images)


def _reason(error: Exception) -> str:
    """Return the message of an error without the path, which may name a patient."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {message}"


@dataclass(frozen=True)
class _GridJob:
    """What a gridded volume depends on; the source itself is known by the fingerprint."""

    patient: str
    fingerprint: str
    limit: int | None
    image_size: int
    centre: Literal["body", "image"]
    source: PatientSource = field(compare=False, repr=False)


@dataclass(frozen=True)
class _Taken:
    """A slice on the experiment's grid: the full dose, and the low dose where it was measured."""

    full: Placed
    low: Placed | None


@dataclass(frozen=True)
class _Volume:
    """A patient's slices on the grid, and what was found when they were read."""

    slices: Sequence[_Taken]
    findings: Findings


@lru_cache(maxsize=1)
def _placed(job: _GridJob) -> _Volume:
    """Load a patient; kept, because the next shard is often the same patient's next protocol."""
    volume = _loaded(job)
    if not volume.slices:
        raise UnusablePatientError("no slices")
    measured = volume.low or [None] * len(volume.slices)
    finite = [
        all(np.isfinite(hu).all() for hu in doses if hu is not None)
        for doses in zip(volume.slices, measured, strict=True)
    ]
    if not any(finite):
        raise UnusablePatientError(NOT_FINITE)
    lost = Findings(left_out={NOT_FINITE: finite.count(False)} if not all(finite) else {})
    taken = []
    for hu, low, spacing_mm, good in zip(
        volume.slices, measured, volume.spacings_mm, finite, strict=True
    ):
        if good:
            full = place(hu, spacing_mm, job.image_size, job.centre)
            taken.append(_Taken(full, None if low is None else replace(full, hu=low)))
    return _Volume(taken, Findings.sum([volume.findings, lost]))


def _loaded(job: _GridJob) -> PatientVolume:
    try:
        return job.source.load(job.patient, job.limit)
    except NoSliceError as error:
        raise UnusablePatientError(error.reason) from error
    except OSError as error:
        # An errno means the disk or the network, not the image: leaving the patient out would
        # hide it. Decoders raise OSError without one.
        if error.errno is not None:
            raise
        raise UnusablePatientError(f"unreadable ({type(error).__name__})") from error
    except MemoryError:
        raise
    except Exception as error:
        raise UnusablePatientError(f"unreadable ({type(error).__name__})") from error


def _scanned(
    patient: _Volume, settings: ShardSettings, shard: Shard
) -> tuple[Scans, dict[str, np.ndarray]]:
    """Return the scans, and the fields (N, ...) to make beside them."""
    volume, window = patient.slices, settings.window_hu
    count = len(volume)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("low", "full", "body", "hu")}
    made: dict[str, list[np.ndarray]] = {name: [] for name in shard.fields}
    for start in range(0, count, SLICES_AT_ONCE):
        scan = _acquired(volume, settings, shard, range(count)[start : start + SLICES_AT_ONCE])
        parts["low"].append(normalise(scan.low_hu, window))
        parts["full"].append(normalise(scan.full_hu, window))
        parts["body"].append(scan.body)
        parts["hu"].append(np.clip(np.rint(scan.low_hu), *HU_RANGE).astype(np.int16))
        for name, values in made.items():
            values.append(field_of(name).made_of(scan))
    images = {name: np.concatenate(values) for name, values in parts.items()}
    scans = Scans(
        **images,
        patient=[shard.patient.pseudonym] * count,
        slice=np.arange(count, dtype=np.int32),
        scale=np.array([taken.full.scale for taken in volume], np.float32),
        image=[image_hash(image) for image in images["hu"]],
        findings=patient.findings,
    )
    return scans, {name: np.concatenate(values) for name, values in made.items()}


def _acquired(
    volume: Sequence[_Taken], settings: ShardSettings, shard: Shard, rows: range
) -> Acquisition:
    """Scan some slices of a patient, or take them as they were measured."""
    simulation, protocol = settings.simulation, shard.protocol
    if all(taken.low is not None for taken in volume):
        return _measured([volume[row] for row in rows], settings, shard)
    grids = [volume[row].full.resample(simulation.object_scale) for row in rows]
    rngs = [generator(settings.seed, shard.client, shard.patient.id, row, "noise") for row in rows]
    device = settings.made_with["device"]
    expected = expect(np.stack([g.object for g in grids]), protocol, simulation, device=device)
    sinogram = measure(expected, protocol, rngs, simulation)
    return Acquisition(
        protocol=protocol,
        full_hu=np.stack([grid.image for grid in grids]),
        low_hu=reconstruct(sinogram, protocol, simulation, device=device),
        body=np.stack([grid.body for grid in grids]).astype(np.uint8),
        line_integrals=sinogram,
        expected=expected,
        simulation=simulation,
        window_hu=settings.window_hu,
    )


def _measured(slices: Sequence[_Taken], settings: ShardSettings, shard: Shard) -> Acquisition:
    """Return slices whose low dose was measured: both doses on the grid, no line integrals."""
    full = [taken.full.resample(1) for taken in slices]
    low = [taken.low.resample(1) for taken in slices if taken.low is not None]
    none = np.empty((len(slices), 0, 0), np.float32)
    return Acquisition(
        protocol=shard.protocol,
        full_hu=np.stack([grid.image for grid in full]),
        low_hu=np.stack([grid.image for grid in low]),
        body=np.stack([grid.body for grid in full]).astype(np.uint8),
        line_integrals=none,
        expected=none,
        simulation=settings.simulation,
        window_hu=settings.window_hu,
    )


def image_hash(hu: np.ndarray) -> str:
    """Return 32 hex digits that stand for a slice, (n, n) int16."""
    return blake2b(f"{hu.shape}".encode() + hu.tobytes(), digest_size=16).hexdigest()

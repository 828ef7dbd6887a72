"""The unit of preparation: one patient scanned under one client's protocol, kept by its hash."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from physfed_ray.code_version import code_version
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import scan
from physfed_ray.data.grid import normalise, to_grid
from physfed_ray.data.patient import PatientSource
from physfed_ray.data.store import Scans, write_scans
from physfed_ray.errors import PhysFedError
from physfed_ray.seeds import generator

# A batch of sinograms must fit into memory: 1024 views x 768 bins are 3 MiB a slice.
SLICES_AT_ONCE = 16

# Everything between a patient's files and a shard.
_CODE = (
    "ct/*.py",
    "data/anatomy/*.py",
    *(f"data/{name}*.py" for name in ("dicom", "grid", "patient", "phantom", "shards", "store")),
    "seeds.py",
)

# What 12 bits hold, as scanners do.
HU_RANGE = (-1024, 3071)


@dataclass(frozen=True)
class ShardSettings:
    """What all shards of an experiment have in common; the keys of the experiment's file."""

    seed: int
    image_size: int
    slices_per_patient: int | None
    window_hu: tuple[float, float]
    centre: Literal["body", "image"]
    electronic_noise: float


@dataclass(frozen=True)
class Shard:
    """One patient under one client's protocol.

    Attributes:
        key: Hash of everything that the content depends on.
        client: Client, or unseen protocol, whose scanner and random stream it is.
        protocol: How that scanner scans.
        patient: The source's own id; hidden, because it may name a person.
        pseudonym: What stands for the patient in files and messages.
        fingerprint: Hash of the patient's volume.
        slices: How many slices it has if all can be read.
    """

    key: str
    client: str
    protocol: Protocol
    patient: str = field(repr=False)
    pseudonym: str
    fingerprint: str
    slices: int


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: it lies in the cache, or its patient is ``unusable`` and why."""

    shard: Shard
    unusable: str | None = None


class UnusablePatientError(Exception):
    """A patient cannot be used; the message gives the reason and no name."""


def make_shard(
    settings: ShardSettings,
    client: str,
    protocol: Protocol,
    patient: str,
    pseudonym: str,
    fingerprint: str,
    slices: int,
) -> Shard:
    """Return a shard with the hash of all that its content depends on."""
    inputs = {
        "settings": asdict(settings),
        "client": client,
        "protocol": asdict(protocol),
        "patient": [patient, pseudonym, fingerprint],
        "version": code_version(*_CODE),
    }
    text = json.dumps(inputs, sort_keys=True)
    key = blake2b(text.encode(), digest_size=16).hexdigest()
    return Shard(key, client, protocol, patient, pseudonym, fingerprint, slices)


def shard_path(cache_folder: Path, key: str) -> Path:
    """Return where a shard lies in the cache, in one of 256 folders."""
    return cache_folder / "shards" / key[:2] / f"{key}.arrow"


def do_shard(
    source: PatientSource, settings: ShardSettings, shard: Shard, cache_folder: Path
) -> Outcome:
    """Load, scan, and put the result into the cache, atomically.

    Raises:
        PhysFedError: A step after loading fails, or the patient's files have become unreachable.
    """
    try:
        volume = _gridded(
            _GridJob(
                shard.patient,
                shard.fingerprint,
                settings.slices_per_patient,
                settings.image_size,
                settings.centre,
                source,
            )
        )
        with _one_thread():
            scans = _scanned(volume, settings, shard)
        write_scans(shard_path(cache_folder, shard.key), scans)
    except UnusablePatientError as error:
        return Outcome(shard, str(error))
    except Exception as error:
        raise PhysFedError(
            f"preparing patient {shard.pseudonym} for {shard.client} ({shard.protocol}) failed: "
            f"{_reason(error)}"
        ) from error
    return Outcome(shard)


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
class _Volume:
    """A patient's slices on the grid: image (N, n, n) HU, body (N, n, n) uint8, scale (N,)."""

    image: np.ndarray
    body: np.ndarray
    scale: np.ndarray


@lru_cache(maxsize=1)
def _gridded(job: _GridJob) -> _Volume:
    """Load a patient; kept, because the next shard is often the same patient's next protocol."""
    try:
        volume = job.source.load(job.patient, job.limit)
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
    if not volume.slices:
        raise UnusablePatientError("no slices")
    if not all(np.isfinite(hu).all() for hu in volume.slices):
        raise UnusablePatientError("pixels that are not finite numbers")
    grids = [
        to_grid(hu, spacing_mm, job.image_size, job.centre)
        for hu, spacing_mm in zip(volume.slices, volume.spacings_mm, strict=True)
    ]
    return _Volume(
        np.stack([grid.image for grid in grids]),
        np.stack([grid.body for grid in grids]).astype(np.uint8),
        np.array([grid.scale for grid in grids], np.float32),
    )


def _scanned(volume: _Volume, settings: ShardSettings, shard: Shard) -> Scans:
    count = len(volume.image)
    rngs = [
        generator(settings.seed, shard.client, shard.patient, index, "noise")
        for index in range(count)
    ]
    low_hu = np.concatenate(
        [
            scan(
                volume.image[start : start + SLICES_AT_ONCE],
                shard.protocol,
                rngs[start : start + SLICES_AT_ONCE],
                electronic_noise=settings.electronic_noise,
            )
            for start in range(0, count, SLICES_AT_ONCE)
        ]
    )
    hu = np.clip(np.rint(low_hu), *HU_RANGE).astype(np.int16)
    return Scans(
        low=normalise(low_hu, settings.window_hu),
        full=normalise(volume.image, settings.window_hu),
        body=volume.body,
        hu=hu,
        patient=[shard.pseudonym] * count,
        slice=np.arange(count, dtype=np.int32),
        scale=volume.scale,
        image=[image_hash(image) for image in hu],
    )


def image_hash(hu: np.ndarray) -> str:
    """Return 32 hex digits that stand for a slice, (n, n) int16."""
    return blake2b(f"{hu.shape}".encode() + hu.tobytes(), digest_size=16).hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one torch thread, so that the bits do not depend on who prepares a shard."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""The unit of preparation: one patient scanned under one client's protocol, named by its hash."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from physfed_ray.code_version import code_version
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.simulation import Simulation
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import LOW, field_of
from physfed_ray.front_ends.base import Choice, FrontEnd

# Everything between a patient's files and a shard.
SCAN_CODE = (
    "ct/*.py",
    "data/anatomy/*.py",
    "data/dicom/*.py",
    *(f"data/{name}*.py" for name in ("grid", "patient", "phantom", "scanning")),
    *(f"data/{name}.py" for name in ("shards", "store", "verified")),
    "fields.py",
    "seeds.py",
    "window.py",
)

FRONT_END_CODE = ("ct/*.py", "front_ends/*.py")
"""Everything between a sinogram and a fixed front end's image."""

LIBRARIES = ("astra-toolbox", "numpy", "scipy", "torch")
"""Another version of these may give other bits."""
DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""A machine without either file has no GPU to scan on: Linux, and Linux in Windows."""


@cache
def made_with() -> Mapping[str, str]:
    """Return what decides a scan's bits beside its inputs: the device and the libraries."""
    on_gpu = any(Path(file).exists() for file in DRIVERS) and torch.cuda.is_available()
    return {"device": "cuda" if on_gpu else "cpu"} | {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    """Return a library's version; without ASTRA, objects that are finer than images are scanned."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@dataclass(frozen=True)
class ShardSettings:
    """What all shards of an experiment have in common.

    Attributes:
        simulation: How scans are simulated.
        made_with: What ``made_with`` says where they are named; the others are the keys of the
            experiment's file.
    """

    seed: int
    slices_per_patient: int | None
    window_hu: tuple[float, float]
    centre: Literal["body", "image"]
    simulation: Simulation
    made_with: Mapping[str, str] = field(default_factory=made_with)


@dataclass(frozen=True)
class Patient:
    """A patient whom an experiment uses.

    Attributes:
        id: The source's own; hidden, because it may name a person.
        pseudonym: What stands for the patient in files and messages.
        fingerprint: Hash of the patient's volume.
        slices: How many slices it has if all can be read.
    """

    id: str = field(repr=False)
    pseudonym: str
    fingerprint: str
    slices: int


@dataclass(frozen=True)
class Front:
    """A fixed front end, and what it has chosen for one protocol.

    Attributes:
        end: The front end.
        choice: Its settings for the protocol.
    """

    end: FrontEnd
    choice: Choice

    @property
    def version(self) -> str:
        """Hash of all that its images depend on beside the sinograms."""
        settings = self.end.settings.model_dump(mode="json")
        inputs = [self.end.name, settings, dict(self.choice), code_version(*FRONT_END_CODE)]
        return blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Shard:
    """One patient under one client's protocol.

    Attributes:
        key: Hash of everything that the content depends on.
        client: Client, or unseen protocol, whose scanner and random stream it is.
        protocol: How that scanner scans.
        patient: Who is scanned.
        fields: Names of the fields to make beside it; the key does not depend on them.
        front: What makes other images than the scanner's of its sinograms, likewise beside it.
    """

    key: str
    client: str
    protocol: Protocol
    patient: Patient
    fields: tuple[str, ...] = ()
    front: Front | None = None

    def files(self, cache_folder: Path) -> list[Path]:
        """Return its files in a cache: its own, those of its fields, that of its front end."""
        files = shard_files(cache_folder, self.key, self.fields)
        return files + ([front_path(cache_folder, self.key, self.front)] if self.front else [])

    def __str__(self) -> str:
        return f"preparing patient {self.patient.pseudonym} for {self.client} ({self.protocol})"


class ClientShards:
    """Names the shards of one client: much of their keys is the same for all patients.

    Args:
        settings: What all shards have in common.
        client: Client, or unseen protocol, whose scanner and random stream it is.
        protocol: How that scanner scans.
    """

    def __init__(self, settings: ShardSettings, client: str, protocol: Protocol) -> None:
        self._client, self._protocol = client, protocol
        inputs = [asdict(settings), client, asdict(protocol), code_version(*SCAN_CODE)]
        self._digest = blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16)

    def key(self, patient: Patient) -> str:
        """Return the hash of all that the content of a patient's shard depends on."""
        digest = self._digest.copy()
        digest.update(json.dumps([patient.id, patient.pseudonym, patient.fingerprint]).encode())
        return digest.hexdigest()

    def shard(self, patient: Patient, fields: tuple[str, ...] = ()) -> Shard:
        """Return a patient's shard, and which fields are to be made beside it."""
        return Shard(self.key(patient), self._client, self._protocol, patient, fields)


def shard_path(cache_folder: Path, key: str) -> Path:
    """Return where a shard lies in the cache, in one of 256 folders."""
    return cache_folder / "shards" / key[:2] / f"{key}.arrow"


def field_path(cache_folder: Path, key: str, name: str) -> Path:
    """Return where a field that not everybody needs lies: a file of its own beside the shard's.

    Its name is the hash of the shard's key and of the field's name and version.
    """
    return _beside(cache_folder, key, name, field_of(name).version)


def front_path(cache_folder: Path, key: str, front: Front) -> Path:
    """Return where the images lie that a front end makes of a shard's sinograms, likewise."""
    return _beside(cache_folder, key, LOW.name, front.version)


def _beside(cache_folder: Path, key: str, name: str, version: str) -> Path:
    own = blake2b(json.dumps([key, name, version]).encode(), digest_size=16).hexdigest()
    return shard_path(cache_folder, key).with_name(f"{own}.{name}.arrow")


def shard_files(cache_folder: Path, key: str, fields: Sequence[str]) -> list[Path]:
    """Return the files of a shard and of those of its fields that are made on demand."""
    own = shard_path(cache_folder, key)
    return [own, *(field_path(cache_folder, key, name) for name in fields)]


def check_machine(settings: ShardSettings) -> None:
    """Refuse to make shards with other libraries, or another device, than they are named for.

    Raises:
        PhysFedError: This machine would give other bits.
    """
    here, named = made_with(), settings.made_with
    other = [name for name in LIBRARIES if here[name] != named[name]]
    if named["device"] == "cuda" and here["device"] != "cuda":
        raise PhysFedError(
            "a node of the cluster has no GPU to scan on, but the driver's node has, and the bits "
            "differ: run with CUDA_VISIBLE_DEVICES set to nothing, so that all scan on CPUs"
        )
    if other:
        raise PhysFedError(
            f"a node of the cluster has {other[0]} {here[other[0]]}, but the driver's node has "
            f"{named[other[0]]}, and their scans differ: install the same version on all nodes"
        )

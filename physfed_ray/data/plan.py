"""Who is scanned as whom: every shard and file of a data set, named before it is made."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from physfed_ray.code_version import code_version
from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.dicom import DicomSource
from physfed_ray.data.patient import PatientSource, pseudonym, user_salt
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.data.pseudonyms import identified
from physfed_ray.data.shards import Shard, ShardSettings, make_shard, shard_path
from physfed_ray.data.split import Split, deal
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import ClientSpec, Experiment, Reports

# Changes to these change the files that the same shards become.
_CODE = tuple(
    f"data/{name}.py"
    for name in ("assemble", "description", "plan", "prepare", "prepared", "store")
)


@dataclass(frozen=True)
class PreparePlan:
    """What is to be made, before anything is made.

    Attributes:
        source: Where the patients come from.
        settings: What all shards have in common.
        reports: What describes the slices.
        cache: Folder of all shards and prepared data sets.
        root: Folder of this data set, named by the hash of all that it depends on.
        clients: Protocol of each training client, by id, in the experiment's order.
        unseen: Protocol of each unseen scanner, likewise.
        files: Shards of each file, by split (``train``, ``validation``, ``test``, ``unseen``) and
            client; a split without patients has no file.
        unused_patients: How many patients no client, test or validation uses.
        source_summary: What the source found, kept and left out, before any pixel is read.
    """

    source: PatientSource
    settings: ShardSettings
    reports: Reports
    cache: Path
    root: Path
    clients: Mapping[str, Protocol]
    unseen: Mapping[str, Protocol]
    files: Mapping[tuple[str, str], tuple[Shard, ...]]
    unused_patients: int
    source_summary: dict[str, Any]

    @property
    def shards(self) -> list[Shard]:
        """All shards, one patient after the other, so that a patient is loaded once."""
        return sorted(
            (shard for shards in self.files.values() for shard in shards),
            key=lambda shard: shard.fingerprint,
        )

    def missing(self) -> list[Shard]:
        """Return the shards that the cache does not hold."""
        return [shard for shard in self.shards if not self.path_of(shard).is_file()]

    def path_of(self, shard: Shard) -> Path:
        """Return where a shard lies once it is made."""
        return shard_path(self.cache, shard.key)

    def file(self, split: str, client: str) -> Path | None:
        """Return the path of a client's file, None where it has no patients."""
        if (split, client) not in self.files:
            return None
        return self.root / split / f"{client}.arrow"


def plan(experiment: Experiment) -> PreparePlan:
    """Find the patients, deal them out, and name every shard and file.

    Raises:
        PhysFedError: There is nothing usable in the source, or too few patients for the clients.
    """
    source = make_source(experiment)
    data = experiment.data
    settings = ShardSettings(
        seed=experiment.seed,
        image_size=data.image_size,
        slices_per_patient=data.slices_per_patient,
        window_hu=data.window_hu,
        centre=data.centre,
        electronic_noise=data.electronic_noise,
    )
    slice_counts = _slice_counts(source, data.slices_per_patient)
    experiment = identified(experiment, slice_counts)
    data = experiment.data
    split = deal(
        slice_counts,
        {client.id: client.patients for client in experiment.clients},
        data.test_patients,
        data.validation_patients,
        experiment.seed,
        reuse=data.reuse_patients,
    )
    files = _files(experiment, source, settings, split, slice_counts)
    cache = cache_folder(data.cache)
    return PreparePlan(
        source=source,
        settings=settings,
        reports=experiment.reports,
        cache=cache,
        root=cache / "prepared" / _hash(files, experiment.reports),
        clients={client.id: client.protocol for client in experiment.clients},
        unseen={client.id: client.protocol for client in experiment.unseen},
        files=files,
        unused_patients=len(split.unused),
        source_summary=source.summary(),
    )


def _files(
    experiment: Experiment,
    source: PatientSource,
    settings: ShardSettings,
    split: Split,
    slice_counts: Mapping[str, int],
) -> dict[tuple[str, str], tuple[Shard, ...]]:
    salt = user_salt()
    used = {p for ids in (*split.train.values(), split.validation, split.test) for p in ids}
    fingerprints = {patient: source.fingerprint(patient) for patient in used}

    def shards_of(client: ClientSpec, patients: Sequence[str]) -> tuple[Shard, ...]:
        return tuple(
            make_shard(
                settings,
                client.id,
                client.protocol,
                patient,
                pseudonym(patient, salt),
                fingerprints[patient],
                slice_counts[patient],
            )
            for patient in patients
        )

    files = {}
    for client in experiment.clients:
        files["train", client.id] = shards_of(client, split.train[client.id])
        files["validation", client.id] = shards_of(client, split.validation)
        files["test", client.id] = shards_of(client, split.test)
    for client in experiment.unseen:
        files["unseen", client.id] = shards_of(client, split.test)
    return {name: shards for name, shards in files.items() if shards}


def make_source(experiment: Experiment) -> PatientSource:
    """Return where the experiment's full-dose images come from."""
    settings = experiment.data.source
    if settings.phantom is not None:
        patients = settings.phantom.patients
        count = experiment.needed_patients() if patients == "auto" else patients
        return PhantomSource(count, settings.phantom.slices, experiment.seed)
    if settings.dicom is None:
        raise PhysFedError("data.source names neither 'dicom' nor 'phantom'; give one of them.")
    return DicomSource(settings.dicom, settings.min_slices)


def _slice_counts(source: PatientSource, limit: int | None) -> dict[str, int]:
    counts = {patient: source.slice_count(patient) for patient in source.ids()}
    return {patient: min(n, limit or n) for patient, n in counts.items()}


def cache_folder(configured: Path | None) -> Path:
    """Return the folder of prepared data: as configured, ``PHYSFED_CACHE``, or the user's own."""
    return (
        configured
        or Path(os.environ.get("PHYSFED_CACHE") or "~/.cache/physfed_ray").expanduser().absolute()
    )


def _hash(files: Mapping[tuple[str, str], Sequence[Shard]], reports: Reports) -> str:
    keys = [[*name, *(shard.key for shard in shards)] for name, shards in files.items()]
    describer = reports.make()
    versions = [code_version(*_CODE), describer.reporter.version, describer.encoder.version]
    return blake2b(json.dumps([versions, keys]).encode(), digest_size=16).hexdigest()

"""Who is scanned as whom: the shards and files of a data set, before any is made."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from physfed_ray.cache import cache_folder
from physfed_ray.code_version import code_version
from physfed_ray.ct.protocol import Protocol, further_of
from physfed_ray.data.left_out import left_out_sentence
from physfed_ray.data.measured_split import deal_measured
from physfed_ray.data.patient import Measured, PatientSource, pseudonym, user_salt
from physfed_ray.data.phantom import SMALLEST_SIZE, PhantomSource
from physfed_ray.data.pseudonyms import identified
from physfed_ray.data.shards import (
    ClientShards,
    Front,
    Patient,
    Shard,
    ShardSettings,
    field_path,
    shard_files,
    shard_path,
)
from physfed_ray.data.split import TooFewPatientsError, deal
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import ClientSpec, Experiment, Reports
from physfed_ray.experiment.from_header import PartlyKnown
from physfed_ray.experiment.measured import known_protocol, scanners
from physfed_ray.fields import EXPECTED, SINOGRAM, field_of, made_fields, on_server
from physfed_ray.front_ends.base import FrontEnd
from physfed_ray.methods.registry import get_method

# Changes to these change the files that the same shards become.
_CODE = tuple(
    f"data/{name}.py"
    for name in ("assemble", "description", "plan", "prepare", "prepared", "store", "verified")
)

_CHOOSING = ("data/front_end.py",)
"""Likewise where a fixed front end chooses its settings."""

SEEN_SPLITS = ("train", "validation", "test")
SERVER = "server"
"""Split of the server's patients, and name of the one file of their scans by all clients."""


@dataclass(frozen=True)
class PreparePlan:
    """What is to be made, before anything is made.

    Shards have names only where they are asked for: counting them is arithmetic.

    Attributes:
        source: Where the patients come from.
        settings: What all shards have in common.
        reports: What describes the slices.
        fields: Names of the fields that this experiment needs and not every client file has.
        training_fields: Names of further ones that it needs of training slices alone.
        front_end: What makes the images that the network reads of what the detector measured.
        cache: Folder of all shards and prepared data sets.
        clients: Protocol of each training client, by id, in the experiment's order.
        unseen: Protocol of each unseen scanner, likewise.
        files: Patients of each file, by split (``train``, ``validation``, ``test``, ``unseen``)
            and client; a split without patients has no file. The parts of the ``server``'s, one a
            client, are one file.
        unlabelled: Clients whose training files have no full dose.
        unused_patients: How many patients no client, test or validation uses.
        source_summary: What the source found, kept and left out, before any pixel is read.
    """

    source: PatientSource
    settings: ShardSettings
    reports: Reports
    fields: tuple[str, ...]
    training_fields: tuple[str, ...]
    front_end: FrontEnd
    cache: Path
    clients: Mapping[str, Protocol]
    unseen: Mapping[str, Protocol]
    files: Mapping[tuple[str, str], tuple[Patient, ...]]
    unused_patients: int
    source_summary: dict[str, Any]
    unlabelled: frozenset[str] = frozenset()

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the further fields of a protocol that g holds."""
        return further_of((*self.clients.values(), *self.unseen.values()))

    @cached_property
    def root(self) -> Path:
        """Folder of this data set, named by the hash of all that it depends on."""
        describer = self.reports.make()
        versions = [code_version(*_CODE), describer.reporter.version, describer.encoder.version]
        inputs: list[Any] = [versions]
        if self.fields:
            inputs.append(_versions(self.fields))
        if self.training_fields:
            inputs.append({"train": _versions(self.training_fields)})
        if self.further:
            inputs.append(self.further)
        if self.front_end.prepares:
            inputs.append(
                {"front_end": [Front(self.front_end, {}).version, code_version(*_CHOOSING)]}
            )
        if self.unlabelled:
            inputs.append(sorted(self.unlabelled))
        digest = blake2b(json.dumps(inputs).encode(), digest_size=16)
        for (split, client), patients in self.files.items():
            digest.update(f"{split} {client}\n".encode())
            named = self._shards_of(client)
            for patient in patients:
                digest.update(named.key(patient).encode())
        return self.cache / "prepared" / digest.hexdigest()

    @property
    def shard_count(self) -> int:
        """How many shards there are."""
        return sum(map(len, self.files.values()))

    @property
    def shards(self) -> list[Shard]:
        """All shards, one patient after the other, so that a patient is loaded once."""
        return sorted(
            (shard for name in self.files for shard in self.shards_of(*name)),
            key=lambda shard: shard.patient.fingerprint,
        )

    def shards_of(self, split: str, client: str) -> list[Shard]:
        """Return the shards of a file, in the order of its patients."""
        named, fields = self._shards_of(client), self.made_of(split)
        return [named.shard(patient, fields) for patient in self.files[split, client]]

    def fields_of(self, split: str) -> tuple[str, ...]:
        """Return the names of the further fields that the files of a split hold."""
        if split == SERVER:
            return on_server(self.fields)
        return self.fields + (self.training_fields if split == "train" else ())

    def made_of(self, split: str) -> tuple[str, ...]:
        """Return the names of the fields to make of the slices of a split."""
        measured = (SINOGRAM.name,) if self.front_end.prepares else ()
        return tuple(dict.fromkeys(self.fields_of(split) + measured))

    def missing(self) -> list[Shard]:
        """Return the shards that the cache does not hold, with all of their fields."""
        return [
            shard
            for shard in self.shards
            if not all(file.is_file() for file in shard.files(self.cache))
        ]

    def cached(self) -> int:
        """Return how many shards the cache holds, with all of their fields."""
        return sum(self._in_cache()) if (self.cache / "shards").is_dir() else 0

    def _in_cache(self) -> Iterator[bool]:
        for (split, client), patients in self.files.items():
            named, fields = self._shards_of(client), self.made_of(split)
            for patient in patients:
                files = shard_files(self.cache, named.key(patient), fields)
                yield all(file.is_file() for file in files)

    def _shards_of(self, client: str) -> ClientShards:
        protocol = self.clients.get(client) or self.unseen[client]
        return ClientShards(self.settings, client, protocol)

    def path_of(self, shard: Shard) -> Path:
        """Return where a shard lies once it is made."""
        return shard_path(self.cache, shard.key)

    def field_path_of(self, shard: Shard, name: str) -> Path:
        """Return where one of the fields of a shard lies once it is made."""
        return field_path(self.cache, shard.key, name)

    def file(self, split: str, client: str) -> Path:
        """Return the path of a client's file of a split in which it has patients."""
        return self.root / split / f"{SERVER if split == SERVER else client}.arrow"


def plan(experiment: Experiment, source: PatientSource | None = None) -> PreparePlan:
    """Find the patients and deal them out.

    Args:
        experiment: The experiment.
        source: Where the patients come from, in place of what ``data.source`` names.

    Raises:
        PhysFedError: There is nothing usable in the source, or too few patients for the clients.
    """
    source = source or make_source(experiment)
    data = experiment.data
    settings = ShardSettings(
        seed=experiment.seed,
        slices_per_patient=data.slices_per_patient,
        window_hu=data.window_hu,
        centre=data.centre,
        simulation=data.simulation,
    )
    slice_counts = _slice_counts(source, data.slices_per_patient)
    experiment = identified(experiment, slice_counts)
    data = experiment.data
    try:
        dealt, unused = _dealt(experiment, slice_counts)
    except TooFewPatientsError as error:
        raise TooFewPatientsError(f"{error}{left_out_sentence(source.summary())}") from None
    front_end = experiment.front_end.make()
    needed = get_method(experiment.method.name).needed_fields(experiment.backbone.make(), front_end)
    fields = made_fields(needed)
    fresh = data.noise == "fresh" and EXPECTED.name not in fields
    return PreparePlan(
        source=source,
        settings=settings,
        reports=experiment.reports,
        fields=fields,
        training_fields=(EXPECTED.name,) if fresh else (),
        front_end=front_end,
        cache=cache_folder(data.cache),
        clients=_protocols(experiment.clients, source, dealt),
        unseen=_protocols(experiment.unseen, source, dealt),
        files=_files(dealt, source, slice_counts),
        unused_patients=unused,
        source_summary=source.summary(),
        unlabelled=frozenset(client.id for client in experiment.clients if not client.labels),
    )


Dealt = Mapping[tuple[str, str], Sequence[str]]
"""Patients' ids by split and client."""


def _dealt(experiment: Experiment, slice_counts: Mapping[str, int]) -> tuple[Dealt, int]:
    """Return the patients of each split and client, and how many nobody uses."""
    data = experiment.data
    wanted = {client.id: client.patients for client in experiment.clients}
    held = data.test_patients, data.validation_patients
    seed, names = experiment.seed, [client.id for client in experiment.clients]
    unseen = {client.id: client.listed_patients for client in experiment.unseen}
    if data.source.pairs is None:
        split = deal(
            slice_counts,
            wanted,
            *held,
            seed,
            reuse=data.reuse_patients,
            server=data.server_patients,
        )
        splits, unused = [(names, split)], split.unused
        unseen = dict.fromkeys(unseen, split.test)
    else:
        groups = scanners(experiment.clients)
        found, unused = deal_measured(slice_counts, groups, wanted, unseen, *held, seed)
        splits = [(list(g.clients), split) for g, split in zip(groups, found, strict=True)]
    dealt: dict[tuple[str, str], Sequence[str]] = {}
    for clients, split in splits:
        for client in clients:
            dealt["train", client] = split.train[client]
            dealt["validation", client] = split.validation
            dealt["test", client] = split.test
            dealt[SERVER, client] = split.server
    kept = {(part, client): dealt[part, client] for client in names for part in SEEN_SPLITS}
    kept |= {("unseen", client): ids for client, ids in unseen.items()}
    return kept | {(SERVER, client): dealt[SERVER, client] for client in names}, len(unused)


def _files(
    dealt: Dealt, source: PatientSource, slice_counts: Mapping[str, int]
) -> dict[tuple[str, str], tuple[Patient, ...]]:
    salt = user_salt()
    lists = {id(ids): ids for ids in dealt.values()}  # Many clients are tested on one list.
    known = {
        name: Patient(name, pseudonym(name, salt), source.fingerprint(name), slice_counts[name])
        for name in {name for ids in lists.values() for name in ids}
    }
    patients = {place: tuple(known[name] for name in ids) for place, ids in lists.items()}
    return {file: patients[id(ids)] for file, ids in dealt.items() if ids}


def _protocols(
    clients: Sequence[ClientSpec], source: PatientSource, dealt: Dealt
) -> dict[str, Protocol]:
    """Return the clients' protocols, with what the headers of their patients say."""
    protocols = {}
    for client in clients:
        said: Mapping[str, float] = {}
        if isinstance(client.protocol, PartlyKnown) and isinstance(source, Measured):
            own = [ids for (_, name), ids in dealt.items() if name == client.id]
            said = source.scanner([patient for ids in own for patient in ids])
        protocols[client.id] = known_protocol(client, said)
    return protocols


def make_source(experiment: Experiment) -> PatientSource:
    """Return where the experiment's images come from."""
    settings = experiment.data.source
    if settings.phantom is not None:
        patients = settings.phantom.patients
        count = experiment.needed_patients() if patients == "auto" else patients
        size = max(SMALLEST_SIZE, experiment.data.simulation.object_size)
        return PhantomSource(count, settings.phantom.slices, experiment.seed, size)
    if settings.pairs is not None:
        from physfed_ray.data.dicom.pairs import PairedSource

        return PairedSource(
            settings.pairs,
            settings.min_slices,
            settings.full,
            settings.low,
            lossy=settings.lossy,
            derived=settings.derived,
        )
    if settings.dicom is None:
        raise PhysFedError("data.source names no images; give one of 'dicom', 'phantom', 'pairs'.")
    from physfed_ray.data.dicom.source import DicomSource  # pydicom: only for those who read files

    return DicomSource(
        settings.dicom, settings.min_slices, lossy=settings.lossy, derived=settings.derived
    )


def _versions(fields: Sequence[str]) -> list[list[str]]:
    return [[name, field_of(name).version] for name in fields]


def _slice_counts(source: PatientSource, limit: int | None) -> dict[str, int]:
    counts = {patient: source.slice_count(patient) for patient in source.ids()}
    return {patient: min(n, limit or n) for patient, n in counts.items()}

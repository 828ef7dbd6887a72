"""From patients to one Arrow file per client and split, cached by the hash of every input.

A plan names the shards (one patient under one client's protocol each) and the files they become.
Shards that lie in the cache are not made again, so a second run computes nothing and a killed one
loses only what was in flight; the same holds for the reports and embeddings of their slices. A
field that only some methods or backbones need is a file of its own beside each shard: neither the
shards nor anybody else's data set depend on it. Where all of that is done is the caller's choice:
here, one after the other, or on Ray (``physfed_ray.runtime.prepare`` and
``physfed_ray.runtime.reports``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from physfed_ray.atomic import sweep
from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.assemble import assemble, statistics
from physfed_ray.data.description import (
    Progress,
    RunReports,
    describe,
    describe_inline,
    tell_reports,
)
from physfed_ray.data.left_out import left_out_sentence, source_line
from physfed_ray.data.patient import Findings, PatientSource
from physfed_ray.data.plan import SEEN_SPLITS, PreparePlan, make_source, plan
from physfed_ray.data.prepared import MANIFEST, Prepared, PreparedClient
from physfed_ray.data.record import data_record
from physfed_ray.data.scanning import Outcome, do_shard
from physfed_ray.data.shards import Patient, Shard, shard_files
from physfed_ray.data.store import client_data_sums, damaged_scans, read_scans
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.reports.cache import DescriptionCache
from physfed_ray.rundir.model import Statistics

__all__ = [
    "PreparePlan",
    "Prepared",
    "PreparedClient",
    "Statistics",
    "left_out_files",
    "plan",
    "prepare",
]

RunShards = Callable[[PreparePlan, Sequence[Shard]], Iterator[Outcome]]


def scan_inline(plan: PreparePlan, shards: Sequence[Shard]) -> Iterator[Outcome]:
    """Make the shards one after the other in this process."""
    for shard in shards:
        yield do_shard(plan.source, plan.settings, shard, plan.cache)


def prepare(
    experiment: Experiment,
    run_shards: RunShards | None = None,
    run_reports: RunReports | None = None,
    progress: Progress | None = None,
    source: PatientSource | None = None,
) -> Prepared:
    """Make what the cache lacks, and return the data set.

    Args:
        experiment: Its data, clients, unseen protocols, reports and seed are read.
        run_shards: Makes shards and yields their outcomes in any order; default in this process.
        run_reports: Describes slices, likewise.
        progress: Receives a ``{"event": "message", "text": str}`` about the source,
            ``{"event": "prepare", "done": int, "total": int, "cached": int}``, in shards, once at
            the start and after every shard, and the events of ``physfed_ray.data.description``.
        source: Where the patients come from, in place of what ``data.source`` names.

    Raises:
        PhysFedError: There is nothing usable, a step after loading fails, or unreadable patients
            leave a client, the test or the validation without any.
    """
    todo = plan(experiment, source)
    if progress is not None:
        progress({"event": "message", "text": source_line(todo.source_summary)})
    if (todo.root / MANIFEST).is_file():
        prepared = _reuse(todo, progress)
        if prepared is not None:
            return prepared
    sweep(todo.cache)
    discard_damaged(todo, progress)
    missing = todo.missing()
    total = todo.shard_count
    done = cached = total - len(missing)
    unusable: dict[str, str] = {}
    _tell(progress, done, total, cached)
    for outcome in (run_shards or scan_inline)(todo, missing):
        done += 1
        if outcome.unusable is not None:
            unusable[outcome.shard.patient.pseudonym] = outcome.unusable
        _tell(progress, done, total, cached)
    usable = [shard for shard in todo.shards if shard.patient.pseudonym not in unusable]
    descriptions = describe(todo, usable, run_reports or describe_inline, progress)
    prepared = _finish(todo, unusable, descriptions)
    _tell_pixels(progress, prepared)
    return prepared


def _tell_pixels(progress: Progress | None, prepared: Prepared) -> None:
    """Say what was found when the pixels were read, if there is anything to say."""
    found = str(Findings(**prepared.data_summary.get("pixels", {})))
    if progress is not None and found:
        progress({"event": "message", "text": f"data: slices {found}"})


def left_out_files(experiment: Experiment) -> list[tuple[str, Path]]:
    """Return the files that are not used, each with the reason.

    For the user's eyes alone: paths may name patients, so they are neither stored nor logged.
    """
    from physfed_ray.data.dicom.source import DicomSource  # pydicom: only for those who read files

    source = make_source(experiment)
    if not isinstance(source, DicomSource):
        return []
    return [(why, path) for why, paths in source.left_out_paths().items() for path in paths]


def _reuse(todo: PreparePlan, progress: Progress | None) -> Prepared | None:
    """Return the data set that an earlier run finished, None if parts of it are no longer whole."""
    try:
        prepared = Prepared.load(todo.root)
    except PhysFedError as error:
        if progress is not None and isinstance(error, DamagedError):
            progress({"event": "message", "text": f"{error.fault}: made again from its scans"})
        return None
    total = todo.shard_count
    _tell(progress, total, total, total)
    splits = prepared.data_summary["splits"].values()
    slices = sum(counts["slices"] for clients in splits for counts in clients.values())
    tell_reports(progress, slices, slices, slices)
    _tell_pixels(progress, prepared)
    summary = prepared.data_summary | {"source": todo.source_summary}
    return _recorded(todo, replace(prepared, data_summary=summary))


def discard_damaged(todo: PreparePlan, progress: Progress | None) -> None:
    """Delete the shards of a plan that are not as they were written; they are then made again."""
    paths = (
        file for shard in todo.shards for file in shard_files(todo.cache, shard.key, shard.fields)
    )
    for error in damaged_scans(path for path in paths if path.is_file()):
        Path(error.where).unlink(missing_ok=True)
        if progress is not None:
            progress({"event": "message", "text": f"{error.fault}: made again"})


def _recorded(todo: PreparePlan, prepared: Prepared) -> Prepared:
    """Return a data set with what identifies it."""
    images = {
        f"{split} {client.id}": images
        for client in (*prepared.clients, *prepared.unseen)
        for split, images in client.images.items()
    }
    return replace(prepared, record=data_record(todo, images))


def _finish(
    todo: PreparePlan, unusable: Mapping[str, str], descriptions: DescriptionCache
) -> Prepared:
    """Join the shards into files, write the manifest last, and return the data set."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    lost: dict[str, int] = {}
    for (split, client), patients in todo.files.items():
        shards = todo.shards_of(split, client)
        usable = [shard for shard in shards if shard.patient.pseudonym not in unusable]
        path = todo.file(split, client)
        if not usable or path is None:
            problem = _nobody_left(split, client, patients, unusable)
            raise PhysFedError(problem + left_out_sentence(todo.source.summary()))
        slices = assemble(
            [todo.path_of(shard) for shard in usable],
            np.stack([shard.protocol.normalised(todo.further) for shard in usable]),
            descriptions,
            path,
            {
                name: [todo.field_path_of(shard, name) for shard in usable]
                for name in todo.fields_of(split)
            },
        )
        counts.setdefault(split, {})[client] = {"patients": len(usable), "slices": sum(slices)}
        for shard, got in zip(usable, slices, strict=True):
            if got < shard.patient.slices:
                lost[shard.patient.pseudonym] = shard.patient.slices - got
    clients = tuple(
        _prepared_client(todo, SEEN_SPLITS, id, protocol, counts["train"][id])
        for id, protocol in todo.clients.items()
    )
    prepared = Prepared(
        root=todo.root,
        image_size=todo.settings.simulation.image_size,
        window_hu=todo.settings.window_hu,
        clients=clients,
        unseen=tuple(
            _prepared_client(todo, ("unseen",), id, protocol, counts["unseen"][id])
            for id, protocol in todo.unseen.items()
        ),
        statistics=statistics([client.train for client in clients if client.train]),
        data_summary={
            "source": todo.source_summary,
            "splits": counts,
            "unusable_patients": dict(unusable),
            "unusable_slices": lost,
            "pixels": asdict(_findings(todo, unusable)),
            "unused_patients": todo.unused_patients,
        },
    )
    prepared.save()
    return _recorded(todo, prepared)


def _findings(todo: PreparePlan, unusable: Mapping[str, str]) -> Findings:
    """Add up what was found in each patient, whom several clients may have scanned."""
    shards = {shard.patient.pseudonym: shard for shard in todo.shards}
    usable = [shard for name, shard in shards.items() if name not in unusable]
    return Findings.sum(read_scans(todo.path_of(shard)).findings for shard in usable)


def _prepared_client(
    todo: PreparePlan,
    splits: Sequence[str],
    client: str,
    protocol: Protocol,
    counts: Mapping[str, int],
) -> PreparedClient:
    files = {split: todo.file(split, client) for split in splits}
    named = {"test" if s == "unseen" else s: path for s, path in files.items() if path is not None}
    sums = {split: client_data_sums(path) for split, path in named.items()}
    return PreparedClient(
        id=client,
        protocol=protocol,
        train=files.get("train"),
        validation=files.get("validation"),
        test=files.get("test", files.get("unseen")),
        checksums={split: own for split, (own, _) in sums.items()},
        images={split: images for split, (_, images) in sums.items()},
        **counts,
    )


def _tell(progress: Progress | None, done: int, total: int, cached: int) -> None:
    if progress is not None:
        progress({"event": "prepare", "done": done, "total": total, "cached": cached})


def _nobody_left(
    split: str, client: str, patients: Sequence[Patient], unusable: Mapping[str, str]
) -> str:
    reasons = ", ".join(f"{p.pseudonym}: {unusable[p.pseudonym]}" for p in patients[:5])
    return (
        f"all {len(patients)} {split} patients of {client} are unusable ({reasons}); "
        "repair their files, or list other patients."
    )

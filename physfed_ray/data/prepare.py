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
from typing import Any

import numpy as np

from physfed_ray.atomic import sweep
from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.assemble import assemble, statistics
from physfed_ray.data.asset_patients import refuse_known_patients
from physfed_ray.data.description import (
    Progress,
    RunReports,
    describe,
    describe_inline,
    tell_reports,
)
from physfed_ray.data.front_end import choose_fronts, tell_fronts, with_fronts
from physfed_ray.data.left_out import left_out_sentence, source_line
from physfed_ray.data.patient import Findings, PatientSource
from physfed_ray.data.plan import SEEN_SPLITS, SERVER, PreparePlan, make_source, plan
from physfed_ray.data.prepared import MANIFEST, Prepared, PreparedClient, PreparedServer
from physfed_ray.data.record import data_record
from physfed_ray.data.scanning import Outcome, do_shard
from physfed_ray.data.shards import Front, Patient, Shard, front_path
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
            the start and after every shard, the same of kind ``images`` where a front end makes
            other images of the scans, and the events of ``physfed_ray.data.description``.
        source: Where the patients come from, in place of what ``data.source`` names.

    Raises:
        PhysFedError: There is nothing usable, a step after loading fails, unreadable patients
            leave a client, the test or the validation without any, or an asset knows patients
            who are to be tested.
    """
    todo = plan(experiment, source)
    refuse_known_patients(experiment, todo)
    if progress is not None:
        progress({"event": "message", "text": source_line(todo.source_summary)})
    if (todo.root / MANIFEST).is_file():
        prepared = _reuse(todo, progress)
        if prepared is not None:
            return prepared
    sweep(todo.cache)
    discard_damaged(todo.shards, todo.cache, progress)
    run = run_shards or scan_inline
    unusable = _made(todo, todo.missing(), todo.shard_count, run, progress)
    usable = [shard for shard in todo.shards if shard.patient.pseudonym not in unusable]
    fronts = choose_fronts(todo, unusable)
    tell_fronts(progress, fronts)
    fronted = with_fronts(usable, fronts)
    discard_damaged(fronted, todo.cache, progress)
    missing = [s for s in fronted if not all(file.is_file() for file in s.files(todo.cache))]
    if missing:
        _made(todo, missing, len(fronted), run, progress, "images")
    descriptions = describe(todo, usable, run_reports or describe_inline, progress)
    prepared = _finish(todo, unusable, descriptions, fronts)
    _tell_pixels(progress, prepared)
    return prepared


def _made(
    todo: PreparePlan,
    missing: Sequence[Shard],
    total: int,
    run: RunShards,
    progress: Progress | None,
    kind: str = "prepare",
) -> dict[str, str]:
    """Make shards that the cache lacks; return the patients who cannot be used, and why."""
    done = cached = total - len(missing)
    unusable: dict[str, str] = {}
    _tell(progress, done, total, cached, kind)
    for outcome in run(todo, missing):
        done += 1
        if outcome.unusable is not None:
            unusable[outcome.shard.patient.pseudonym] = outcome.unusable
        _tell(progress, done, total, cached, kind)
    return unusable


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


def discard_damaged(shards: Sequence[Shard], cache_folder: Path, progress: Progress | None) -> None:
    """Delete those files of shards that are not as they were written; they are then made again."""
    paths = (file for shard in shards for file in shard.files(cache_folder))
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
    if prepared.server is not None:
        images[f"{SERVER} {SERVER}"] = prepared.server.images
    return replace(prepared, record=data_record(todo, images))


def _finish(
    todo: PreparePlan,
    unusable: Mapping[str, str],
    descriptions: DescriptionCache,
    fronts: Mapping[str, Front],
) -> Prepared:
    """Join the shards into files, write the manifest last, and return the data set."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    lost: dict[str, int] = {}
    for (split, name), clients in _sharers(todo).items():
        usable = _usable(todo, split, name, clients, unusable)
        slices = assemble(
            [todo.path_of(shard) for shard in usable],
            np.stack([shard.protocol.normalised(todo.further) for shard in usable]),
            descriptions,
            todo.file(split, name),
            {
                field: [todo.field_path_of(shard, field) for shard in usable]
                for field in todo.fields_of(split)
            },
            [front_path(todo.cache, shard.key, fronts[shard.client]) for shard in usable]
            if fronts
            else None,
            labels=split != "train" or name not in todo.unlabelled,
        )
        patients = {shard.patient.pseudonym for shard in usable}
        counts.setdefault(split, {})[name] = {"patients": len(patients), "slices": sum(slices)}
        for shard, got in zip(usable, slices, strict=True):
            if got < shard.patient.slices:
                lost[shard.patient.pseudonym] = shard.patient.slices - got
    trained = tuple(
        _prepared_client(todo, SEEN_SPLITS, id, protocol, counts["train"][id], fronts)
        for id, protocol in todo.clients.items()
    )
    prepared = Prepared(
        root=todo.root,
        image_size=todo.settings.simulation.image_size,
        window_hu=todo.settings.window_hu,
        clients=trained,
        unseen=tuple(
            _prepared_client(todo, ("unseen",), id, protocol, counts["unseen"][id], fronts)
            for id, protocol in todo.unseen.items()
        ),
        statistics=statistics([client.train for client in trained if client.train]),
        data_summary=_summary(todo, unusable, counts, lost, fronts),
        server=_prepared_server(todo, counts[SERVER][SERVER]) if SERVER in counts else None,
    )
    prepared.save()
    return _recorded(todo, prepared)


def _summary(
    todo: PreparePlan,
    unusable: Mapping[str, str],
    counts: Mapping[str, Mapping[str, Mapping[str, int]]],
    lost: Mapping[str, int],
    fronts: Mapping[str, Front],
) -> dict[str, Any]:
    """Return what was found, kept and left out, and what front ends have chosen."""
    return {
        "source": todo.source_summary,
        "splits": counts,
        "unusable_patients": dict(unusable),
        "unusable_slices": dict(lost),
        "pixels": asdict(_findings(todo, unusable)),
        "unused_patients": todo.unused_patients,
        "front_end": {client: dict(front.choice) for client, front in fronts.items()},
    }


def _sharers(todo: PreparePlan) -> dict[tuple[str, str], list[str]]:
    """Return every file, by split and name, with the clients whose scans it holds."""
    files: dict[tuple[str, str], list[str]] = {}
    for split, client in todo.files:
        files.setdefault((split, SERVER if split == SERVER else client), []).append(client)
    return files


def _usable(
    todo: PreparePlan,
    split: str,
    name: str,
    clients: Sequence[str],
    unusable: Mapping[str, str],
) -> list[Shard]:
    """Return the shards of a file whose patients could be read.

    Raises:
        PhysFedError: There are none.
    """
    shards = [shard for client in clients for shard in todo.shards_of(split, client)]
    usable = [shard for shard in shards if shard.patient.pseudonym not in unusable]
    if not usable:
        problem = _nobody_left(split, name, todo.files[split, clients[0]], unusable)
        raise PhysFedError(problem + left_out_sentence(todo.source.summary()))
    return usable


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
    fronts: Mapping[str, Front],
) -> PreparedClient:
    files = {s: todo.file(s, client) for s in splits if (s, client) in todo.files}
    named = {"test" if split == "unseen" else split: path for split, path in files.items()}
    sums = {split: client_data_sums(path) for split, path in named.items()}
    return PreparedClient(
        id=client,
        protocol=protocol,
        train=files.get("train"),
        validation=files.get("validation"),
        test=files.get("test", files.get("unseen")),
        checksums={split: own for split, (own, _) in sums.items()},
        images={split: images for split, (_, images) in sums.items()},
        front=dict(fronts[client].choice) if client in fronts else {},
        **counts,
    )


def _prepared_server(todo: PreparePlan, counts: Mapping[str, int]) -> PreparedServer:
    path = todo.file(SERVER, SERVER)
    own, images = client_data_sums(path)
    return PreparedServer(path, checksum=own, images=images, **counts)


def _tell(
    progress: Progress | None, done: int, total: int, cached: int, kind: str = "prepare"
) -> None:
    if progress is not None:
        progress({"event": kind, "done": done, "total": total, "cached": cached})


def _nobody_left(
    split: str, client: str, patients: Sequence[Patient], unusable: Mapping[str, str]
) -> str:
    reasons = ", ".join(f"{p.pseudonym}: {unusable[p.pseudonym]}" for p in patients[:5])
    of_client = "" if client == split else f" of {client}"
    return (
        f"all {len(patients)} {split} patients{of_client} are unusable ({reasons}); "
        "repair their files, or list other patients."
    )

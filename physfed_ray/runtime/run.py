"""One run of an experiment: prepare, train, evaluate, write its page."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from physfed_ray.assets.store import find_asset
from physfed_ray.cost.estimate import checked_method, trains_on_server
from physfed_ray.data.patient import PatientSource
from physfed_ray.data.prepare import Prepared
from physfed_ray.data.pseudonyms import pseudonymous, pseudonymous_command
from physfed_ray.device import resolve_precision
from physfed_ray.events import PREPARING, Event
from physfed_ray.experiment import Experiment
from physfed_ray.experiment.assets import named_assets
from physfed_ray.federation.availability import make_availability
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.runtime import Runtime
from physfed_ray.federation.serving import evaluate_all
from physfed_ray.federation.spec import ClientFiles, Spec, UnseenInfo
from physfed_ray.methods.base import Method
from physfed_ray.methods.given import ClientInfo, ServerInfo
from physfed_ray.rundir.assets import keep_assets, know_assets
from physfed_ray.rundir.data_record import (
    write_record,
)
from physfed_ray.rundir.model import ModelCard, write_card
from physfed_ray.rundir.plain_json import json_line
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.begin import check_data, open_run
from physfed_ray.runtime.model import begun_model, model_card, with_statistics
from physfed_ray.runtime.results import with_provenance, write_page, write_results
from physfed_ray.serving.rebuild import rebuild
from physfed_ray.trackers import make_tracker
from physfed_ray.trackers.base import Tracker

"""Events that come too often for the log, but for the last."""


@dataclass(frozen=True)
class ClusterShare:
    """What a run that is one of several on a Ray cluster may take of it.

    Attributes:
        runs: How many of them there are side by side.
        lock: File that only one of them at a time holds while it takes its places, so that no two
            hold a part of the cluster each and wait for the other's.
    """

    runs: int
    lock: Path


def run_experiment(
    experiment: Experiment,
    out: Path | str,
    *,
    resume: bool = False,
    runtime: Literal["ray", "inline"] = "ray",
    address: str | None = None,
    dashboard: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    command: str = "",
    tested: bool = True,
    share: ClusterShare | None = None,
    beside: Sequence[str] = (),
    source: PatientSource | None = None,
    page: bool = True,
) -> str:
    """Run an experiment, or go on with an interrupted run, and write its page.

    Args:
        experiment: The resolved experiment.
        out: Run directory, a local path or an fsspec URL.
        resume: Go on from the last completed round of ``out``.
        runtime: "ray" or "inline" (one process).
        address: Ray cluster to join; None starts one on this machine.
        dashboard: Start Ray's dashboard with it.
        on_event: Receives progress events.
        command: The command line, for the record.
        tested: Evaluate on test patients and unseen protocols, and write the page; otherwise
            the run ends with its validation scores.
        source: Where the patients come from, in place of what ``data.source`` names; for the
            inline runtime, which has no other node that would look for them.
        page: Write the page of a tested run.
        share: What it may take of the Ray cluster; None: all.
        beside: Run directories, begun or not, that it will be compared with: of the same data.

    Returns:
        The run directory.

    Raises:
        PhysFedError: For anything a user can mend.
    """
    directory = RunDirectory(out)
    # Ids of patients go no further than to the preparation of the data.
    listed, experiment = experiment, pseudonymous(experiment)

    def tell(text: str) -> None:
        on_event({"event": "message", "text": text})

    command = pseudonymous_command(command)
    with ExitStack() as stack:
        know_assets(directory, ())
        method = checked_method(experiment)
        open_run(directory, experiment, resume, tell, stack)
        ids = [client.id for client in experiment.clients]
        make_availability(experiment.federation.availability, experiment.seed, ids)
        on_event = _logged(directory, on_event)
        if runtime == "ray":
            on_event = _on_cluster(experiment, address, dashboard, on_event, stack)
        prepared = _prepare(listed, runtime, on_event, source)
        check_data(directory, prepared.record, beside, tell)
        model = begun_model(directory, resume)
        if model is not None:
            prepared = with_statistics(prepared, model, on_event)
        placed = None if runtime == "inline" else _place(experiment, method, on_event, stack, share)
        on_gpu = torch.cuda.is_available() if placed is None else placed.slots.num_gpus > 0
        device = "cuda" if on_gpu else "cpu"
        precision = model.precision if model else experiment.training.precision
        card = model_card(experiment, prepared, resolve_precision(precision, device))
        spec = make_spec(experiment, prepared, card, _root_everywhere(directory), device)
        directory.write("experiment.yaml", with_provenance(experiment).encode())
        write_card(directory, card)
        keep_assets(directory, [named for _, named in named_assets(experiment)])
        if prepared.record is not None:
            write_record(directory, prepared.record)
        tracker = stack.enter_context(_tracker(experiment, directory, resume, on_event))
        place = _start_runtime(experiment, spec, placed)
        stack.callback(place.close)
        rounds = Rounds(spec, experiment.federation, place, directory, on_event, tracker.add)
        rounds.surviving(rounds.resume)
        on_event(_start_event(spec, place, rounds, runtime))
        rounds.run()
        results = rounds.surviving(lambda: evaluate_all(rounds, tested=tested))
        rounds.surviving(
            lambda: write_results(directory, rounds, results, experiment, prepared, command)
        )
        tracker.add(results.rows)
        if tested and page:
            write_page(directory)
        tracker.finish("finished")
        on_event({"event": "done", "run_dir": directory.root})
    return directory.root


def _on_cluster(
    experiment: Experiment,
    address: str | None,
    dashboard: bool,
    on_event: Callable[[Event], None],
    stack: ExitStack,
) -> Callable[[Event], None]:
    """Join or start Ray, and also show each event as Ray metrics."""
    from physfed_ray.runtime.cluster import connect
    from physfed_ray.runtime.metrics import RunMetrics

    if (said := connect(address, dashboard)) is not None:
        on_event({"event": "message", "text": said})
    metrics = RunMetrics(experiment.run_name())
    stack.callback(metrics.close)

    def both(event: Event) -> None:
        metrics(event)
        on_event(event)

    return both


def _tracker(
    experiment: Experiment,
    directory: RunDirectory,
    resume: bool,
    on_event: Callable[[Event], None],
) -> Tracker:
    return make_tracker(
        ("tensorboard", *experiment.tracking),
        experiment.to_yaml(),
        experiment.run_name(),
        directory.root,
        resume,
        lambda text: on_event({"event": "message", "text": text}),
    )


def _root_everywhere(directory: RunDirectory) -> str:
    """Return where the run directory is, for processes that started in other folders."""
    local = directory.local_path
    return directory.root if local is None else str(local.absolute())


def make_spec(
    experiment: Experiment, prepared: Prepared, card: ModelCard, run_root: str | None, device: str
) -> Spec:
    """Return what hosts and server need, from the experiment, its data and its model's card."""
    speeds = {client.id: client.speed for client in experiment.clients}
    bare = {client.id for client in experiment.clients if not client.labels}
    clients = tuple(
        ClientInfo(
            i, c.id, c.protocol, c.slices, speeds[c.id], card.further, c.front, c.id not in bare
        )
        for i, c in enumerate(prepared.clients)
    )
    method = rebuild(card, experiment.training.objective.make())
    server = prepared.server if method.trains_on_server else None
    unseen = tuple(
        UnseenInfo(u.id, u.protocol, u.test, u.slices, card.further, u.front)
        for u in prepared.unseen
        if u.test is not None
    )
    return Spec(
        seed=experiment.seed,
        method=method,
        training=experiment.training,
        precision=card.precision,
        clients=clients,
        files=tuple(ClientFiles(c.train, c.validation, c.test) for c in prepared.clients),
        unseen=unseen,
        window_hu=experiment.data.window_hu,
        clinical_windows=dict(experiment.data.clinical_windows),
        run_root=run_root,
        device=device,
        private_memory_mb=experiment.federation.private_memory_mb,
        simulation=experiment.data.simulation,
        metrics=experiment.evaluation.metrics,
        noise=experiment.data.noise,
        channel=experiment.federation.channel.make(),
        server=None if server is None else ServerInfo(len(clients), server.slices),
        server_file=None if server is None else server.path,
        assets=tuple(find_asset(named).absolute() for _, named in named_assets(experiment)),
    )


def _logged(directory: RunDirectory, on_event: Callable[[Event], None]) -> Callable[[Event], None]:
    """Also write each event as a line of ``run.log``."""

    def log(event: Event) -> None:
        if event["event"] not in PREPARING or event["done"] == event["total"]:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            directory.append_line("run.log", json_line({"time": stamp} | event))
        on_event(event)

    return log


def _prepare(
    experiment: Experiment,
    runtime: str,
    on_event: Callable[[Event], None],
    source: PatientSource | None,
) -> Prepared:
    if runtime == "inline":
        from physfed_ray.data.prepare import prepare

        return prepare(experiment, progress=on_event, source=source)
    from physfed_ray.runtime.prepare import prepare_on_ray

    return prepare_on_ray(experiment, on_event)


def _place(
    experiment: Experiment,
    method: Method,
    on_event: Callable[[Event], None],
    stack: ExitStack,
    share: ClusterShare | None,
) -> Any:
    """Reserve the hosts' places on the Ray cluster."""
    from physfed_ray.runtime.cluster import Slots, alive_nodes, choose_slots, part_of
    from physfed_ray.runtime.placement import reserve, taking_turns
    from physfed_ray.runtime.pooled import pooled_slots

    members = len(experiment.clients) + trains_on_server(experiment, method)
    federation, threads = experiment.federation, experiment.training.threads

    def choose() -> Slots:
        nodes = part_of(alive_nodes(), share.runs if share else 1)
        if method.pooled:
            return pooled_slots(experiment.method.settings, federation, threads, nodes)
        return choose_slots(members, federation, threads, nodes)

    with taking_turns(share.lock if share else None):
        placed = reserve(
            choose,
            experiment.federation.wait_s,
            lambda text: on_event({"event": "message", "text": text}),
        )
    stack.callback(placed.close)
    return placed


def _start_runtime(experiment: Experiment, spec: Spec, placed: Any) -> Runtime:
    if placed is None:
        from physfed_ray.runtime.inline import InlineRuntime

        return InlineRuntime(spec)
    from physfed_ray.runtime.on_ray import RayRuntime

    return RayRuntime(spec, placed, experiment.federation, experiment.run_name())


def _start_event(spec: Spec, place: Runtime, rounds: Rounds, runtime: str) -> Event:
    return {
        "event": "start",
        "clients": [client.id for client in spec.clients],
        "hosts": len(place.assignment),
        "runtime": runtime,
        "method": spec.method.title,
        "from_round": rounds.manifest.round,
        "rounds": spec.training.rounds,
        "precision": spec.precision,
        "device": spec.device,
    }

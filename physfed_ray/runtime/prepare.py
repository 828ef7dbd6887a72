"""Preparation on Ray: one task per shard, on all nodes that can see the patients."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from physfed_ray.atomic import atomic_file
from physfed_ray.cache import cache_folder
from physfed_ray.data.description import Progress
from physfed_ray.data.dicom.listing import folder_of, list_folder
from physfed_ray.data.patient import PatientSource, evenly_spaced
from physfed_ray.data.plan import PreparePlan
from physfed_ray.data.prepare import prepare, scan_inline
from physfed_ray.data.prepared import Prepared
from physfed_ray.data.scanning import Outcome, do_shard
from physfed_ray.data.shards import Shard, ShardSettings
from physfed_ray.data.store import damaged_scans
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.runtime.files import can_write
from physfed_ray.runtime.reports import describe_on_ray

# Enough that a core never waits for the driver, few enough that cancelling is quick and that the
# files on their way to the driver fit the nodes' object stores.
TASKS_PER_CPU = 2
RETRIES = 2
# Listing a large folder on a network drive may take a minute.
PROBE_S = 120.0
PROBED_FILES = 16
PROBED_BYTES = 2**20
# How often to look whether the nodes that a task may run on are still there.
LOOK_S = 10.0


def prepare_on_ray(experiment: Experiment, progress: Progress | None = None) -> Prepared:
    """Make what the cache lacks on the Ray cluster that this process is connected to.

    The nodes need no common folder: a shard made elsewhere is sent to the driver's cache. Phantoms
    are made on every node, DICOM on the nodes that hold the same folder at the same path.

    Args:
        experiment: Its data, clients, unseen protocols, reports and seed are read.
        progress: As in ``physfed_ray.data.prepare.prepare``.

    Raises:
        PhysFedError: As ``physfed_ray.data.prepare.prepare`` does; also if a Ray worker dies again
            and again.
    """
    run = partial(run_shards, folder=experiment.data.source.folder)
    return prepare(experiment, run, describe_on_ray, progress)


def run_shards(
    plan: PreparePlan, shards: Sequence[Shard], folder: Path | None = None
) -> Iterator[Outcome]:
    """Make shards as Ray tasks and yield their outcomes as they come.

    Args:
        plan: What the shards belong to.
        shards: What to make.
        folder: The source's folder; None if the source is there on every node.

    Raises:
        PhysFedError: A shard fails, or its worker dies more often than it is retried.
    """
    if not shards:
        return
    nodes = None if folder is None else nodes_with(folder)
    if nodes is not None and not _cpus(nodes):
        yield from scan_inline(plan, shards)
        return
    task: Any = ray.remote(num_cpus=1, max_retries=RETRIES, num_returns=2)(_make)
    if nodes is not None:
        task = task.options(label_selector={"ray.io/node-id": f"in({','.join(nodes)})"})
    source, settings = ray.put(plan.source), ray.put(plan.settings)
    waiting = iter(shards)
    running: dict[Any, tuple[Any, Shard]] = {}
    try:
        while True:
            limit = TASKS_PER_CPU * max(1, _cpus(nodes))
            while len(running) < limit and (shard := next(waiting, None)) is not None:
                outcome, content = task.remote(source, settings, shard, plan.cache)
                running[outcome] = content, shard
            if not running:
                return
            ready, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_S)
            for handle in ready:
                yield _outcome(handle, *running.pop(handle), plan)
            if not ready and nodes is not None and not _cpus(nodes):
                raise PhysFedError(
                    "every node that holds the DICOM folder has left the cluster while the data "
                    "were prepared: run again, what is finished is kept."
                )
    finally:
        for handle in running:
            ray.cancel(handle, force=True)


def nodes_with(folder: Path) -> list[str]:
    """Return the ids of the nodes where a folder, absolute, holds what it holds for the driver."""
    wanted = look_at(folder)
    probe = ray.remote(num_cpus=0, max_retries=0)(look_at)
    nodes = {}
    for node in _node_cpus():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        nodes[probe.options(scheduling_strategy=there).remote(folder)] = node
    if not nodes:
        return []
    ready, late = ray.wait(list(nodes), num_returns=len(nodes), timeout=PROBE_S)
    for handle in late:
        ray.cancel(handle, force=True)
    return [nodes[handle] for handle in ready if _answer(handle) == wanted]


def look_at(folder: Path) -> str:
    """Return a hash of a folder's files and sizes, and of the beginnings of a few of them."""
    digest = blake2b(digest_size=16)
    paths = list_folder(folder_of(folder)).files
    sampled = set(evenly_spaced(len(paths), PROBED_FILES))
    for index, path in enumerate(paths):
        try:
            digest.update(f"{path}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            if index in sampled:
                with path.open("rb") as file:
                    digest.update(file.read(PROBED_BYTES))
        except OSError:
            digest.update(b"unreadable")
    return digest.hexdigest()


def _answer(handle: Any) -> str | None:
    """Return what a probe saw, None if its node cannot tell."""
    try:
        return str(ray.get(handle))
    except ray.exceptions.RayError:
        return None


def _make(
    source: PatientSource, settings: ShardSettings, shard: Shard, cache: Path
) -> tuple[Outcome, list[np.ndarray]]:
    """Make a shard and the fields that go with it, in a task.

    Returns:
        Its outcome, and its files, each (n,) uint8. They stay in this node's object store until
        the driver fetches them, which it does only if it does not see a file itself.
    """
    folder = cache if can_write(cache) else cache_folder(None)
    paths = shard.files(folder)
    for error in damaged_scans(path for path in paths if path.is_file()):
        Path(error.where).unlink(missing_ok=True)
    there = all(path.is_file() for path in paths)
    outcome = Outcome(shard) if there else do_shard(source, settings, shard, folder)
    return outcome, [np.fromfile(path, np.uint8) for path in paths if outcome.unusable is None]


def _outcome(handle: Any, content: Any, shard: Shard, plan: PreparePlan) -> Outcome:
    what = f"{shard} failed"
    try:
        outcome: Outcome = ray.get(handle)
        paths = shard.files(plan.cache)
        if outcome.unusable is None and not all(path.is_file() for path in paths):
            for path, written in zip(paths, ray.get(content), strict=True):
                with atomic_file(path) as temporary:
                    written.tofile(temporary)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PhysFedError):
            raise error.cause from None
        raise PhysFedError(f"{what} on Ray: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        raise PhysFedError(
            f"{what} {RETRIES + 1} times because its Ray worker died ({type(error).__name__}); "
            "give the nodes more memory, or use --runtime inline."
        ) from error
    except OSError as error:
        raise PhysFedError(
            f"{what}: its file cannot be written to {plan.cache} ({error.strerror}); make room "
            "there, or set data.cache to another folder."
        ) from error
    return outcome


def _cpus(nodes: Collection[str] | None) -> int:
    """Return the CPUs of the nodes that are alive, all or those given."""
    return int(sum(cpus for id, cpus in _node_cpus().items() if nodes is None or id in nodes))


def _node_cpus() -> dict[str, float]:
    """Return the CPUs of each node that is alive and has any, by its id."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    cpus = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in nodes if node["Alive"]}
    return {id: count for id, count in cpus.items() if count}

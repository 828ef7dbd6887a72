"""Preparation on Ray: one task per shard, on all cores of all nodes."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from physfed_ray.data.plan import PreparePlan
from physfed_ray.data.prepare import Progress, prepare
from physfed_ray.data.prepared import Prepared
from physfed_ray.data.shards import Outcome, Shard, do_shard
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment

# Enough that a core never waits for the driver, few enough that cancelling is quick.
TASKS_PER_CPU = 2
RETRIES = 2
# NFS remembers for up to a minute that a file was not there.
VISIBLE_AFTER_S = 70.0


def prepare_on_ray(experiment: Experiment, progress: Progress | None = None) -> Prepared:
    """Make what the cache lacks on the Ray cluster that this process is connected to.

    The shards travel as files: ``data.cache`` must lie on a file system that all nodes share, or
    the cluster must be one machine. Raises what ``physfed_ray.data.prepare.prepare`` raises.

    Args:
        experiment: Its data, clients, unseen protocols, reports and seed are read.
        progress: As in ``physfed_ray.data.prepare.prepare``.

    Raises:
        PhysFedError: Also if a worker dies again and again, or its files do not reach the driver.
    """
    return prepare(experiment, run_shards, progress)


def run_shards(plan: PreparePlan, shards: Sequence[Shard]) -> Iterator[Outcome]:
    """Make shards as Ray tasks and yield their outcomes as they come.

    Raises:
        PhysFedError: A shard fails, or its worker dies more often than it is retried.
    """
    if not shards:
        return
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(do_shard)
    source, settings = ray.put(plan.source), ray.put(plan.settings)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    limit = TASKS_PER_CPU * max(1, int(resources.get("CPU", 1)))
    waiting = iter(shards)
    running: dict[Any, Shard] = {}
    try:
        while True:
            while len(running) < limit and (shard := next(waiting, None)) is not None:
                running[task.remote(source, settings, shard, plan.cache)] = shard
            if not running:
                return
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            yield _outcome(ready, running.pop(ready), plan)
    finally:
        for handle in running:
            ray.cancel(handle, force=True)


def _outcome(handle: Any, shard: Shard, plan: PreparePlan) -> Outcome:
    what = f"patient {shard.pseudonym} for {shard.client} ({shard.protocol})"
    try:
        outcome: Outcome = ray.get(handle)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PhysFedError):
            raise error.cause from None
        raise PhysFedError(f"preparing {what} failed on Ray: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        raise PhysFedError(
            f"preparing {what} failed {RETRIES + 1} times because its Ray worker died "
            f"({type(error).__name__}); give the nodes more memory, or use --runtime inline."
        ) from error
    if outcome.unusable is None and not _appears(plan.path_of(shard)):
        raise PhysFedError(
            f"a Ray worker prepared {what}, but the file does not appear under {plan.cache}; "
            "set data.cache to a folder that all nodes share."
        )
    return outcome


def _appears(path: Path) -> bool:
    """Wait for a file that another node wrote; a network file system may show it late."""
    give_up = time.monotonic() + VISIBLE_AFTER_S
    while not path.is_file():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.5)
    return True

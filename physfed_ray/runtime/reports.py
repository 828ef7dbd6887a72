"""Reports and embeddings on Ray: a pool of actors, fed and scaled by Ray Data.

All slices are known beforehand here, so throughput counts and waiting does not: Ray Data streams
batches through an actor pool and already has the queue, the autoscaling, the back-pressure and the
retries. Requests that come one by one, each with somebody waiting for it, go to
``physfed_ray.runtime.report_service`` instead, which puts the same class behind Ray Serve.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.util.annotations import RayDeprecationWarning

from physfed_ray.data.description import DescribedSlices, Slice
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Reports
from physfed_ray.experiment.reports import Pool
from physfed_ray.reports.base import Described
from physfed_ray.runtime.pool import PoolReporter, as_sentence, share

RATE_AFTER_S = 1.0
"""A rate over less time says nothing."""


@dataclass
class _Health:
    """Who answered so far, and how fast."""

    started: float = 0.0
    first: int = 0
    done: int = 0
    actors: set[str] = field(default_factory=set)
    restarted: set[str] = field(default_factory=set)

    def words(self, batch: Mapping[str, Any]) -> str:
        """Count a batch of ``PoolReporter`` in, and return the health in words."""
        self.actors.update(batch["actor"])
        self.restarted.update(batch["process"][batch["restarted"]])
        self.done += len(batch["image"])
        words = [f"{len(self.actors)} reporter{'s' * (len(self.actors) > 1)}"]
        if not self.started:
            # The first batch waited for the models.
            self.started, self.first = time.monotonic(), self.done
        elif (seconds := time.monotonic() - self.started) > RATE_AFTER_S:
            words.append(f"{(self.done - self.first) / seconds:.1f} slices/s")
        if self.restarted:
            words.append(f"{len(self.restarted)} restarted")
        return ", ".join(words)


def describe_on_ray(reports: Reports, slices: Sequence[Slice]) -> Iterator[DescribedSlices]:
    """Describe slices in a pool of actors; see ``physfed_ray.data.description.run_inline``.

    Batches come as they are finished, in any order. Closing the iterator ends the actors.

    Raises:
        PhysFedError: No machine can carry a reporter, a batch fails, or its actors die more often
            than it is retried.
    """
    if not slices:
        return
    health = _Health()
    with _errors(reports.pool):
        with _quiet_data() as data:
            dataset = _dataset(data, reports, slices)
        for batch in dataset.iter_batches(batch_size=None):
            described = Described(list(batch["report"]), batch["embedding"], batch["mask"])
            yield DescribedSlices(list(batch["image"]), described, health.words(batch))


def _dataset(data: Any, reports: Reports, slices: Sequence[Slice]) -> Any:
    """Return the pipeline: read on this node, perhaps the only one with the files; describe."""
    pool, each = reports.pool, share(reports)
    chunks = [slices[i : i + pool.max_batch] for i in range(0, len(slices), pool.max_batch)]
    here = ray.get_runtime_context().get_node_id()
    # One reader is enough, and keeps the batches as they are cut here: the same ones as inline.
    read = data.from_arrow([_table(chunk) for chunk in chunks]).map_batches(
        _reader(),
        batch_size=None,
        batch_format="pyarrow",
        compute=data.TaskPoolStrategy(size=1),
        num_cpus=0,
        label_selector={"ray.io/node-id": here},
    )
    numbers = count(1)

    def of_actor() -> dict[str, Any]:
        return {"name": f"reporter-{next(numbers)}", "max_task_retries": pool.retries}

    return read.map_batches(
        PoolReporter,
        fn_constructor_args=(reports, each.gpus),
        batch_size=pool.max_batch,
        batch_format="numpy",
        compute=data.ActorPoolStrategy(
            min_size=min(pool.min_size, len(chunks)), max_size=min(each.most, len(chunks))
        ),
        num_cpus=each.cpus,
        num_gpus=each.gpus,
        ray_remote_args_fn=of_actor,
    )


def _reader() -> Callable[[Any], dict[str, Any]]:
    """Return what adds the images to a batch.

    Not a function of this module, so that its process need not import what describing needs.
    """

    def read(table: Any) -> dict[str, Any]:
        from physfed_ray.data.store import read_scans

        rows = table.to_pylist()
        scans = {path: read_scans(Path(path)) for path in table["scans"].unique().to_pylist()}
        hu = [scans[row["scans"]].hu[row["row"]] for row in rows]
        return {
            "image": np.array([row["image"] for row in rows], object),
            "report": np.array([row["report"] or "" for row in rows], object),
            "known": np.array([row["report"] is not None for row in rows]),
            "hu": np.stack(hu),
        }

    return read


def _table(slices: Sequence[Slice]) -> Any:
    return pa.table(
        {
            "image": pa.array([s.image for s in slices], pa.string()),
            "scans": pa.array([str(s.scans) for s in slices], pa.string()),
            "row": pa.array([s.row for s in slices], pa.int64()),
            "report": pa.array([s.report for s in slices], pa.large_string()),
        }
    )


@contextmanager
def _quiet_data() -> Iterator[Any]:
    """Give ``ray.data``, whose data sets made here print nothing; its log file has it all."""
    import ray.data as data

    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.CRITICAL + 1)
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    with warnings.catch_warnings(), data.DataContext.current(context):
        warnings.simplefilter("ignore", RayDeprecationWarning)  # see of_actor
        yield data


@contextmanager
def _errors(pool: Pool) -> Iterator[None]:
    """Turn what Ray raises into one sentence."""
    from ray.data.exceptions import ExecutionTimeoutError

    try:
        yield
    except ray.exceptions.RayError as error:
        raise as_sentence(error, pool) from error
    except ExecutionTimeoutError as error:
        raise PhysFedError(
            "the Ray cluster had no room for a reporter for half an hour: end what occupies its "
            "CPUs and GPUs, or lower reports.pool.cpus_per_reporter or gpus_per_reporter"
        ) from error

"""Reports and embeddings on Ray: a pool of actors, fed and scaled by Ray Data.

All slices are known beforehand here, so throughput counts and waiting does not: Ray Data streams
batches through an actor pool and already has the queue, the autoscaling, the back-pressure and the
retries. Requests that come one by one, each with somebody waiting for it, go to
``physfed_ray.runtime.report_service`` instead, which puts the same class behind Ray Serve.
"""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import ray
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_put,
)
from ray.util.annotations import RayDeprecationWarning

from physfed_ray.data.description import DescribedSlices, Slice, describe_inline
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Reports
from physfed_ray.reports.base import Described
from physfed_ray.runtime.pool import PoolReporter, as_sentence, died, share

RATE_AFTER_S = 1.0
"""A rate over less time says nothing."""
WORTH_S = 20.0
"""A pool takes seconds to start, longer than measuring and embedding some hundred slices."""
_numbers = count(1)
"""Of the actors that this process has named."""


class BatchReporter(PoolReporter):
    """A reporter that Ray Data hands batches to.

    Ray repeats a batch whose actor died without end, because it cannot tell a batch that kills
    from a machine that is lost and stays unreachable for a while. So what has begun is counted
    here, in the cluster's own store of keys.

    Args:
        reports: As in ``PoolReporter``.
        gpus: As in ``PoolReporter``.
        run: What no other job's batches are counted under.
    """

    def __init__(self, reports: Reports, gpus: float, run: str) -> None:
        super().__init__(reports, gpus)
        self._pool, self._run = reports.pool, run

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Describe a batch, the columns that ``_reader`` makes."""
        known = [r if k else None for r, k in zip(batch["report"], batch["known"], strict=True)]
        with self._counted(batch["image"]):
            described = self.describe(batch["hu"], known)
        context, rows = ray.get_runtime_context(), len(described)
        return {
            "image": batch["image"],
            "report": np.array(described.report, object),
            "embedding": described.embedding,
            "mask": described.mask,
            "actor": np.array([context.get_actor_id()] * rows, object),
            "process": np.array([f"{context.get_node_id()} {os.getpid()}"] * rows, object),
            "restarted": np.full(rows, context.was_current_actor_reconstructed),
        }

    @contextmanager
    def _counted(self, images: Sequence[str]) -> Iterator[None]:
        key = f"{self._run}/{blake2b(''.join(images).encode(), digest_size=16).hexdigest()}"
        begun = int(_internal_kv_get(key) or 0)
        if begun > self._pool.retries:
            raise died(self._pool, "the same batch each time")
        _internal_kv_put(key, str(begun + 1))
        yield
        _internal_kv_del(key)


@dataclass
class _Health:
    """Who answered so far, and how fast."""

    started: float = 0.0
    first: int = 0
    done: int = 0
    actors: set[str] = field(default_factory=set)
    restarted: set[str] = field(default_factory=set)

    def words(self, batch: Mapping[str, Any]) -> str:
        """Count a batch of ``BatchReporter`` in, and return the health in words."""
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


def describe_on_ray(
    reports: Reports, slices: Sequence[Slice], worth_s: float = WORTH_S
) -> Iterator[DescribedSlices]:
    """Describe slices in a pool of actors; see ``physfed_ray.data.description.describe_inline``.

    Batches come as they are finished, in any order. Closing the iterator ends the actors.

    Args:
        reports: What to describe with, and ``reports.pool``.
        slices: What to describe.
        worth_s: Seconds of work that are worth starting a pool for, where no GPU is used.

    Raises:
        PhysFedError: No machine can carry a reporter, a batch fails, or its actors die more often
            than it is retried.
    """
    health, left = _Health(), {s.image: s for s in slices}
    for quick in _while_quick(reports, slices, worth_s):
        for image in quick.images:
            del left[image]
        yield quick
    for attempt in range(reports.pool.retries + 1):
        try:
            for batch in _batches(reports, list(left.values())) if left else ():
                described = Described(list(batch["report"]), batch["embedding"], batch["mask"])
                for image in batch["image"]:
                    del left[image]
                yield DescribedSlices(list(batch["image"]), described, health.words(batch))
            return
        except ray.exceptions.ActorDiedError as error:
            # For good, by `ray.kill`: Ray does not start another one in its place.
            if attempt == reports.pool.retries:
                raise as_sentence(error, reports.pool) from error


def _while_quick(
    reports: Reports, slices: Sequence[Slice], worth_s: float
) -> Iterator[DescribedSlices]:
    """Describe in this process as long as what is left takes less than ``worth_s``."""
    describer = reports.make()
    if not worth_s or describer.reporter.uses_gpu or describer.encoder.uses_gpu:
        return
    done, begun = -1, 0.0
    for batch in describe_inline(reports, slices):
        yield batch
        if done < 0:  # it waited for the models
            done, begun = 0, time.monotonic()
            slices = slices[len(batch.images) :]
            continue
        done += len(batch.images)
        if (time.monotonic() - begun) / done * (len(slices) - done) > worth_s:
            return


def _batches(reports: Reports, slices: Sequence[Slice]) -> Iterator[dict[str, Any]]:
    """Yield what ``BatchReporter`` returns for each batch; no actor is left at the end."""
    from ray.data.exceptions import ExecutionTimeoutError

    names: list[str] = []
    try:
        yield from quiet(_dataset(reports, slices, names)).iter_batches(batch_size=None)
    except ray.exceptions.ActorDiedError:
        raise
    except ray.exceptions.RayError as error:
        raise as_sentence(error, reports.pool) from error
    except ExecutionTimeoutError as error:
        raise PhysFedError(
            "the Ray cluster had no room for a reporter for half an hour: end what occupies its "
            "CPUs and GPUs, or lower reports.pool.cpus_per_reporter or gpus_per_reporter"
        ) from error
    finally:
        for name in names:  # after an error Ray Data may leave some
            with suppress(ValueError):
                ray.kill(ray.get_actor(name))


def _dataset(reports: Reports, slices: Sequence[Slice], names: list[str]) -> Any:
    """Return the pipeline: read on this node, perhaps the only one with the files; describe.

    Args:
        reports: What to describe with.
        slices: What to describe.
        names: Gets the name of every actor that is started.
    """
    import ray.data as data

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

    def of_actor() -> dict[str, Any]:
        names.append(f"reporter-{next(_numbers)}")
        return {"name": names[-1]}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # there is no other way so far
        return read.map_batches(
            BatchReporter,
            fn_constructor_args=(reports, each.gpus, uuid4().hex),
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


def quiet(dataset: Any) -> Any:
    """Return the pipeline, which prints nothing; Ray Data's own log file has it all."""
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.CRITICAL + 1)
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    dataset.context.raise_original_map_exception = True
    return dataset

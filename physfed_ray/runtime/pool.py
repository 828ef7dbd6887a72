"""A reporter and a text encoder in an actor of a pool, and what the actor takes of the cluster."""

import faulthandler
import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import ray

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Reports
from physfed_ray.experiment.reports import Pool
from physfed_ray.reports.base import Described
from physfed_ray.reports.describer import Describer
from physfed_ray.runtime.cluster import alive_nodes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolShare:
    """What each reporter of a pool takes, and how many the cluster carries.

    Attributes:
        cpus: CPUs of each.
        gpus: GPUs of each, may be a fraction.
        most: Reporters at most.
    """

    cpus: float
    gpus: float
    most: int


def share(reports: Reports) -> PoolShare:
    """Settle what ``auto`` means in ``reports.pool`` on the cluster as it is.

    Raises:
        PhysFedError: No machine can carry a reporter; or the model is not there.
    """
    pool, describer, nodes = reports.pool, reports.make(), alive_nodes()
    gpus = pool.gpus_per_reporter
    if gpus == "auto":
        gains = describer.reporter.uses_gpu or describer.encoder.uses_gpu
        gpus = 1.0 if gains and any(node.get("GPU") for node in nodes) else 0.0
    room = sum(_room(node, pool.cpus_per_reporter, gpus) for node in nodes)
    # An autoscaler may bring machines for a pool of known size, but for no other.
    if room < 1 and (pool.max_size == "auto" or pool.gpus_per_reporter == "auto"):
        raise PhysFedError(
            f"no machine of the Ray cluster has room for a reporter with {pool.cpus_per_reporter:g}"
            f" CPU(s) and {gpus:g} GPU(s): lower reports.pool.cpus_per_reporter or "
            "gpus_per_reporter, or add such machines"
        )
    most = room if pool.max_size == "auto" else pool.max_size
    return PoolShare(pool.cpus_per_reporter, gpus, max(pool.min_size, most))


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many reporters a node can carry."""
    room = int(node.get("CPU", 0.0) / cpus + 1e-9)
    if gpus == 0:
        return room
    whole = int(node.get("GPU", 0.0))
    carried = whole * int(1 / gpus + 1e-9) if gpus < 1 else int(whole // gpus)
    return min(room, carried)


class PoolReporter:
    """A reporter and a text encoder in an actor, on their slice of a GPU.

    A batch that takes longer than the pool's timeout ends the process, whatever it hangs in: Ray
    starts another one and repeats the batch there.

    Args:
        reports: What it describes with.
        gpus: GPUs of the actor; below 1 it may not use more of the GPU's memory than that share.
    """

    def __init__(self, reports: Reports, gpus: float) -> None:
        self._reports, self._gpus = reports, gpus

    @cached_property
    def _describer(self) -> Describer:
        """Made with the first batch, whose failure reaches the caller as one sentence."""
        if 0 < self._gpus < 1:
            import torch

            torch.cuda.set_per_process_memory_fraction(self._gpus)
        return self._reports.make()

    def describe(self, hu: np.ndarray, known: Sequence[str | None]) -> Described:
        """Describe a batch.

        Args:
            hu: B slices, (B, n, n) in HU.
            known: Report of each that has one already, else None.

        Raises:
            PhysFedError: It failed. No text of a report is in the message.
        """
        with _one_sentence(self._reports), _at_most(self._reports.pool.timeout_s):
            new = [row for row, report in enumerate(known) if report is None]
            images = hu[new].astype(np.float32)
            written = iter(self._describer.report(images) if new else [])
            return self._describer.embed([next(written) if r is None else r for r in known])


@contextmanager
def _one_sentence(reports: Reports) -> Iterator[None]:
    """Turn any error into one sentence without its own words, which may quote a report."""
    try:
        yield
    except PhysFedError:
        raise
    except Exception as error:
        log.debug("describing a batch failed", exc_info=True)
        place = traceback.extract_tb(error.__traceback__)[-1]
        memory = type(error).__name__ == "OutOfMemoryError"
        advice = (
            "lower reports.pool.max_batch, or raise reports.pool.gpus_per_reporter"
            if memory
            else "repeat it with --runtime inline to see the whole error"
        )
        raise PhysFedError(
            f"describing slices with reporter '{reports.reporter.name}' and encoder "
            f"'{reports.encoder.name}' failed ({type(error).__name__} at "
            f"{Path(place.filename).name}:{place.lineno}): {advice}"
        ) from None


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End the process, with its stack in the actor's log, if the block takes longer."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def as_sentence(error: Exception, pool: Pool) -> PhysFedError:
    """Return one sentence for what Ray raises when a reporter failed or died."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    if isinstance(cause, PhysFedError):
        return PhysFedError(str(cause).splitlines()[0])  # Ray Data adds lines of its own
    if isinstance(error, ray.exceptions.RayTaskError):
        return PhysFedError(
            f"describing slices on Ray failed ({type(cause).__name__}): repeat it with --runtime "
            "inline to see the whole error"
        )
    return died(pool, type(error).__name__)


def died(pool: Pool, detail: str) -> PhysFedError:
    """Return the sentence about a batch, or a request, whose reporters died."""
    return PhysFedError(
        f"describing slices failed {pool.retries + 1} times because their reporter died or took "
        f"longer than reports.pool.timeout_s = {pool.timeout_s:g} ({detail}): give it more memory "
        "or time, or lower reports.pool.max_batch"
    )

"""Scanned slices get their reports and embeddings, each once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from physfed_ray.data.plan import PreparePlan
from physfed_ray.data.shards import Shard
from physfed_ray.data.store import read_scans
from physfed_ray.experiment import Reports
from physfed_ray.reports.base import Described
from physfed_ray.reports.cache import DescriptionCache
from physfed_ray.reports.describer import Describer


@dataclass(frozen=True)
class Slice:
    """A slice to describe.

    Attributes:
        image: Hash of the image.
        scans: File of the scans that it belongs to.
        row: Its row there.
        report: Its report if it has one already and lacks the embedding only.
    """

    image: str
    scans: Path
    row: int
    report: str | None = None


@dataclass(frozen=True)
class DescribedSlices:
    """Slices that are described.

    Attributes:
        images: Hashes of B images.
        described: Their reports and embeddings.
        health: Who described them, in words for the user; empty in one process.
    """

    images: list[str]
    described: Described
    health: str = ""


RunReports = Callable[[Reports, Sequence[Slice]], Iterator[DescribedSlices]]
Progress = Callable[[dict[str, Any]], None]


def read_slices(slices: Sequence[Slice]) -> np.ndarray:
    """Return the images of B slices, (B, n, n) float32 in HU."""
    return np.stack([read_scans(s.scans).hu[s.row] for s in slices]).astype(np.float32)


def describe_slices(describer: Describer, slices: Sequence[Slice]) -> Described:
    """Return reports and embeddings of B slices; reports that they have are kept."""
    new = [s for s in slices if s.report is None]
    written = iter(describer.report(read_slices(new)) if new else [])
    return describer.embed([next(written) if s.report is None else s.report for s in slices])


def describe_inline(reports: Reports, slices: Sequence[Slice]) -> Iterator[DescribedSlices]:
    """Describe batch by batch in this process."""
    describer = reports.make()
    waiting = iter(slices)
    while batch := list(islice(waiting, reports.pool.max_batch)):
        yield DescribedSlices([s.image for s in batch], describe_slices(describer, batch))


def describe(
    todo: PreparePlan,
    shards: Sequence[Shard],
    run: RunReports,
    progress: Progress | None = None,
) -> DescriptionCache:
    """Describe what the cache lacks; each batch is kept as it comes.

    Args:
        todo: What the shards belong to.
        shards: Shards that have been made.
        run: Describes slices, in any order.
        progress: Receives ``{"event": "reports", "done": int, "total": int, "cached": int,
            "health": str}``, in different images, at the start and after every batch.

    Returns:
        The cache, which now holds all of the shards' slices.
    """
    cache = DescriptionCache(todo.cache, todo.reports.make())
    places = {
        image: (path, row)
        for path in (todo.path_of(shard) for shard in shards)
        for row, image in enumerate(read_scans(path).image)
    }
    missing = cache.missing(places)
    done = cached = len(places) - len(missing)
    tell_reports(progress, done, len(places), cached)
    slices = [Slice(image, *places[image], report) for image, report in missing.items()]
    for batch in run(todo.reports, slices) if slices else ():
        cache.add(batch.images, batch.described)
        done += len(batch.images)
        tell_reports(progress, done, len(places), cached, batch.health)
    return cache


def tell_reports(
    progress: Progress | None, done: int, total: int, cached: int, health: str = ""
) -> None:
    """Give the event of ``describe`` to whom it concerns."""
    if progress is not None:
        progress(
            {"event": "reports", "done": done, "total": total, "cached": cached, "health": health}
        )

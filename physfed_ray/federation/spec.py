"""All that a host or the parameter server needs to build itself: plain, picklable values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from physfed_ray.experiment import Training
from physfed_ray.methods.base import ClientInfo, Method


@dataclass(frozen=True)
class ClientFiles:
    """Prepared Arrow files of one client; None where it has no data for a split."""

    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None


@dataclass(frozen=True)
class UnseenInfo:
    """A protocol that no client trained on, with its test images."""

    id: str
    g: tuple[float, ...]
    test: Path
    slices: int


@dataclass(frozen=True)
class Spec:
    """One federation.

    Attributes:
        precision: Already resolved, so that a resumed run computes as the first one did.
        run_root: Run directory, None when nothing is to be written (benchmarks).
    """

    seed: int
    method: Method
    training: Training
    precision: Literal["fp32", "bf16"]
    clients: tuple[ClientInfo, ...]
    files: tuple[ClientFiles, ...]
    unseen: tuple[UnseenInfo, ...]
    window_hu: tuple[float, float]
    clinical_windows: dict[str, tuple[float, float]]
    run_root: str | None
    device: str = "cpu"


def assign(slices: Sequence[int], hosts: int) -> list[range]:
    """Deal clients to hosts as contiguous ranges of nearly equal load.

    Contiguous ranges keep the subtrees of the aggregation tree whole on one host (fewer pieces
    travel); with them the largest load is the smallest that any contiguous dealing allows.

    Args:
        slices: Training slices of each client.
        hosts: Number of hosts, at most the number of clients.

    Returns:
        One non-empty range of client indices a host.
    """
    loads = [max(1, s) for s in slices]
    low, high = max(loads), sum(loads)
    while low < high:
        middle = (low + high) // 2
        if _hosts_needed(loads, middle) <= hosts:
            high = middle
        else:
            low = middle + 1
    ranges: list[range] = []
    start = 0
    for left in reversed(range(hosts)):
        stop, load = start + 1, loads[start]
        while stop < len(loads) - left and load + loads[stop] <= low:
            load += loads[stop]
            stop += 1
        ranges.append(range(start, stop))
        start = stop
    return ranges


def _hosts_needed(loads: Sequence[int], limit: int) -> int:
    hosts, load = 1, 0
    for value in loads:
        if load + value > limit:
            hosts, load = hosts + 1, 0
        load += value
    return hosts

"""How many runs of a suite a machine carries."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from physfed_ray.cost.estimate import run_bytes
from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.lock import alone
from physfed_ray.suites.suite import Variant

__all__ = ["Place", "alone", "side_by_side"]

Place = Literal["ray", "inline"]


def side_by_side(
    variants: Sequence[Variant], jobs: int | None, runtime: Place, address: str | None
) -> int:
    """Return how many runs go side by side.

    Where nobody says: as many as this machine has cores and memory for, one on a GPU, and one on
    Ray, where a run spreads over the whole cluster by itself.

    Args:
        variants: Those of which something is left to do.
        jobs: What the user wants; None: nothing.
        runtime: "ray" or "inline".
        address: Ray cluster to join.

    Raises:
        PhysFedError: Several runs would each start a Ray of their own.
    """
    if runtime == "ray":
        from physfed_ray.runtime.cluster import told_address

        joined = told_address(address) is not None
        if jobs is not None and jobs > 1 and not joined:
            raise PhysFedError(
                f"--jobs {jobs} would start Ray {jobs} times on this machine, each with all of its "
                "cores: give the --address of one cluster, or --runtime inline"
            )
        return jobs or 1
    if jobs is not None:
        return jobs
    if not variants or torch.cuda.is_available():
        return 1
    experiments = [variant.runs[0].experiment for variant in variants]
    threads = max(experiment.training.threads for experiment in experiments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    by_cores, free = (cores or 1) // threads, _free_bytes()
    if by_cores <= 1 or free is None:
        return max(1, by_cores)
    largest = max(map(run_bytes, experiments))
    return max(1, min(by_cores, int(free / largest)))


def _free_bytes() -> int | None:
    """Return the memory that this machine can give, None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None

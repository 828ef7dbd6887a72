"""What the benchmarks share: federations to measure, a Ray to measure them on, and time."""

import logging
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from torch import nn

from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.store import ClientData, read_client_data, write_client_data
from physfed_ray.experiment import Federation, Training
from physfed_ray.experiment.generate import scanner
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.spec import ClientFiles, Spec
from physfed_ray.methods.base import Method, NoSettings
from physfed_ray.methods.given import ClientInfo, Task
from physfed_ray.models.registry import make_backbone
from physfed_ray.rundir.long_table import MetricRow
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.cluster import Slots
from physfed_ray.runtime.local import few_processes
from physfed_ray.runtime.on_ray import RayRuntime
from physfed_ray.runtime.placement import reserve

T = TypeVar("T")
CACHE_BYTES = 256 * 2**20
STORE_BYTES = 2 * 2**30
ACTORS = {"server": "ServerActor", "hosts": "HostActor"}
"""Class names of our actors, by the group in which ``processes.Peaks`` reports them."""


def test_images(path: Path, count: int | None) -> ClientData:
    """Return test slices, or so many of them, evenly spaced; only images and bodies are chosen."""
    data = read_client_data(path)
    if count is None or count >= len(data):
        return data
    rows = np.linspace(0, len(data) - 1, count).round().astype(int)
    return replace(data, low=data.low[rows], full=data.full[rows], body=data.body[rows])


class Weights(nn.Module):
    """Nothing but parameters."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))


class OnlyParameters(Method):
    """Shares a vector of a given size; its clients have no training to do."""

    name = title = "only_parameters"
    paper = ""
    group = "generic"
    shared = ("weights",)
    Settings = NoSettings

    def __init__(self, size: int, task: Task) -> None:
        super().__init__(NoSettings(), task)
        self.size = size

    def children(self):  # type: ignore[no-untyped-def]
        """See ``Method.children``."""
        return {"weights": lambda: Weights(self.size)}


def make_task(clients: int, size: int, dim: int = 1, channels: int = 1) -> Task:
    """Return the task of images of ``size`` pixels a side and reports of one token."""
    backbone = make_backbone(channels=channels)
    return Task(size, clients, 0.5, 0.25, 1, dim, (0.0,) * dim, (1.0,) * dim, backbone)


def make_spec(
    method: Method,
    clients: int,
    files: Sequence[Path],
    slices: int,
    run_root: str | None = None,
    private_memory_mb: float = 2048.0,
    **training: Any,
) -> Spec:
    """Return a federation whose clients take turns with the files and have protocols of their own.

    Args:
        method: What they do.
        clients: How many there are.
        files: Training data.
        slices: Slices in each file.
        run_root: Run directory for checkpoints, None for none.
        private_memory_mb: Memory of a host for private states.
        training: Settings that differ from the defaults; nothing is evaluated.
    """
    points = np.random.default_rng(1).random((clients, 7))
    settings = {"evaluate_every": 10**9, "rounds": 10**9} | training
    return Spec(
        seed=1,
        method=method,
        training=Training().model_copy(update=settings),
        precision="fp32",
        clients=tuple(ClientInfo(i, f"c{i}", scanner(points[i]), slices) for i in range(clients)),
        files=tuple(ClientFiles(train=files[i % len(files)]) for i in range(clients)),
        unseen=(),
        window_hu=(-1000, 2000),
        clinical_windows={},
        run_root=run_root,
        simulation=Simulation(method.task.image_size),
        private_memory_mb=private_memory_mb,
    )


def make_empty_spec(clients: int, size: int, folder: Path) -> Spec:
    """Return a federation of ``size`` shared parameters whose clients do no training."""
    # In a process of its own: to write Arrow data imports pandas, whose memory is no round's.
    file = run_alone(write_random_slices, folder / "one.arrow", 1, 8)
    method = OnlyParameters(size, make_task(clients, 8))
    return make_spec(method, clients, [file], 1, local_epochs=0)


def write_random_slices(file: Path, slices: int, size: int, dim: int = 1, seed: int = 1) -> Path:
    """Write smooth random slices with noise as one client's data and return the file."""
    rng = np.random.default_rng(seed)
    full = np.cumsum(np.cumsum(rng.standard_normal((slices, size, size)), 1), 2)
    full = ((full - full.min()) / np.ptp(full)).astype(np.float32)
    low = (full + rng.normal(0, 0.05, full.shape)).clip(0, 1).astype(np.float32)
    write_client_data(
        file,
        ClientData(
            low=low,
            full=full,
            body=np.ones(full.shape, np.uint8),
            embedding=rng.standard_normal((slices, 1, dim)).astype(np.float32),
            embedding_mask=np.ones((slices, 1), np.uint8),
            g=np.tile(rng.random(7).astype(np.float32), (slices, 1)),
            patient=["p"] * slices,
            slice=np.arange(slices, dtype=np.int32),
            scale=np.ones(slices, np.float32),
            report=["r"] * slices,
        ),
    )
    return file


def start_ray(cpus: int | None = None) -> None:
    """Start Ray on this machine as a run does, with an object store of a fixed size."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    with few_processes():
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            object_store_memory=STORE_BYTES,
        )


def make_runtime(spec: Spec, hosts_of_nodes: Sequence[int]) -> RayRuntime:
    """Return a runtime with that many hosts of one CPU on each node."""
    return RayRuntime(spec, reserve(lambda: Slots(tuple(hosts_of_nodes))))


def make_rounds(spec: Spec, place: RayRuntime, rows: list[MetricRow] | None = None) -> Rounds:
    """Return the rounds of a federation, with a run directory where the spec names one.

    Args:
        spec: The federation.
        place: Where it runs.
        rows: Receives the metrics of every round.
    """
    directory = RunDirectory(spec.run_root) if spec.run_root else None
    keep = (lambda more: None) if rows is None else rows.extend
    return Rounds(spec, Federation(), place, directory, lambda event: None, keep)


def client_seconds(rows: Sequence[MetricRow]) -> dict[int, dict[str, float]]:
    """Return the seconds of each client's own training, by round and client."""
    found: dict[int, dict[str, float]] = {}
    for number, client, split, metric, value in rows:
        if (split, metric) == ("train", "seconds"):
            found.setdefault(number, {})[client] = value
    return found


def round_seconds(rounds: Rounds, first: int, last: int) -> list[float]:
    """Run rounds ``first`` to ``last`` and return the seconds of each, its commit included."""
    seconds = []
    for number in range(first, last + 1):
        began = time.perf_counter()
        rounds.run_round(number)
        seconds.append(time.perf_counter() - began)
    return seconds


def copy_seconds(size: int) -> float:
    """Return the median time to copy ``size`` float32 from memory to mapped memory.

    Enough buffers take turns that none is still in the cache, as in a round, where every client
    has vectors of its own.
    """
    count = max(2, CACHE_BYTES * 2 // (4 * size))
    sources = [torch.ones(size) for _ in range(count)]
    targets = [torch.ones(size) for _ in range(count)]
    times = []
    for turn in range(max(21, 3 * count)):
        began = time.perf_counter()
        targets[turn % count].copy_(sources[turn % count])
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def run_alone(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a process of its own, whose memory and Ray are then its own as well."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the range of some times."""
    return {
        "seconds": rounded(statistics.median(seconds)),
        "min": rounded(min(seconds)),
        "max": rounded(max(seconds)),
    }


def rounded(value: float) -> float:
    """Return a number with four significant digits."""
    return float(f"{value:.4g}")

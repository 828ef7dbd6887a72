"""What a round costs when clients do no training: seconds, beside the time of one copy.

    python benchmarks/round.py

A federation of 8 and 64 clients on 2 Ray hosts, with 1.85 and 40 million shared parameters; every
client receives the vector, loads it into its network, and its (unchanged) update is checked,
added up and averaged. Checkpoints are off, as in the simulators it is compared with. One copy is
the median time to copy a vector of that size from memory that is not in the cache into memory
that is already mapped, in the same process and run. Ray's object store is mapped beforehand too
(``RAY_preallocate_plasma_memory=1``): without it, putting 7.4 MB into pages that nobody has touched
yet took 22 ms instead of 7 ms where this was written. The bound that the project sets itself is
0.03 s + 3 copies per client of a host + 6 copies per host. Prints one JSON line.
"""

import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import torch
from torch import nn

from physfed_ray.data.store import ClientData, write_client_data
from physfed_ray.experiment import Federation, Training
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.spec import ClientFiles, Spec
from physfed_ray.methods.base import ClientInfo, Method, NoSettings, Task
from physfed_ray.models.registry import BackboneSettings
from physfed_ray.runtime.on_ray import RayRuntime

HOSTS = 2
REPEATS = 9
CACHE_BYTES = 256 * 2**20
CASES = ((8, 1_850_000), (64, 1_850_000), (8, 40_000_000), (64, 40_000_000))


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


def make_spec(clients: int, size: int, file: Path) -> Spec:
    """Return a federation whose clients pass zero times over one tiny file."""
    task = Task(8, clients, 0.0, 1.0, 1, 1, (0.0,), (1.0,), BackboneSettings())
    return Spec(
        seed=1,
        method=OnlyParameters(size, task),
        training=Training().model_copy(update={"local_epochs": 0, "evaluate_every": 10**9}),
        precision="fp32",
        clients=tuple(ClientInfo(i, f"c{i}", (0.0,) * 7, 1) for i in range(clients)),
        files=tuple(ClientFiles(train=file) for _ in range(clients)),
        unseen=(),
        window_hu=(-1000, 2000),
        clinical_windows={},
        run_root=None,
    )


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


def round_seconds(clients: int, size: int, file: Path) -> list[float]:
    """Return the seconds of some rounds, after two that warm up."""
    spec = make_spec(clients, size, file)
    place = RayRuntime(spec, HOSTS)
    rounds = Rounds(spec, Federation(), place, None, lambda event: None, lambda rows: None)
    for number in range(1, REPEATS + 3):
        rounds.run_round(number)
    place.close()
    return [r[4] for r in rounds.rows if r[3] == "seconds" and r[1] == "server"][2:]


def main() -> None:
    """Measure every case and print one line of JSON."""
    torch.set_num_threads(1)
    os.environ.setdefault("RAY_preallocate_plasma_memory", "1")
    ray.init(
        address="local",
        include_dashboard=False,
        logging_level=logging.ERROR,
        object_store_memory=2 * 2**30,
    )
    file = Path(tempfile.mkdtemp()) / "one.arrow"
    pixel = np.zeros((1, 8, 8), np.float32)
    write_client_data(
        file,
        ClientData(pixel, pixel, pixel.astype(np.uint8), np.zeros((1, 1, 1), np.float32),
                   np.ones((1, 1), np.uint8), np.zeros(7, np.float32), ["p"],
                   np.zeros(1, np.int32), np.ones(1, np.float32), ["r"]),
    )  # fmt: skip
    results = []
    for clients, size in CASES:
        times, copy = round_seconds(clients, size, file), copy_seconds(size)
        seconds = statistics.median(times)
        bound = 0.03 + 3 * copy * clients / HOSTS + 6 * copy * HOSTS
        results.append(
            {
                "clients": clients,
                "parameters": size,
                "hosts": HOSTS,
                "seconds": round(seconds, 4),
                "min": round(min(times), 4),
                "max": round(max(times), 4),
                "copy_seconds": round(copy, 5),
                "bound_seconds": round(bound, 4),
                "share_of_bound": round(seconds / bound, 2),
            }
        )
    ray.shutdown()
    print(json.dumps({"benchmark": "round", "cases": results}))


if __name__ == "__main__":
    main()

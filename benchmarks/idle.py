"""How long hosts wait for the slowest of them where clients are unequal.

    python benchmarks/idle.py

FedAvg, RED-CNN of 16 channels, 2 hosts of one thread; whole images of 64 x 64 in batches of 4.
A host is busy while one of its clients trains and waits until the last host has finished; ``idle``
is the share of the hosts' time that they wait, mean over the rounds after the first two. The hosts
are those of the inline runtime, which train one after the other, so that neither slows the other.
Clients are dealt to hosts once, by their slices, and stay there with their data and private parts.
Speeds (``speed_spread``) are simulated time: a slow client takes as long as any other here, and is
late on paper only. Prints one JSON line.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import client_seconds, make_spec, make_task, run_alone
from common import write_random_slices as write

from physfed_ray.experiment import Federation
from physfed_ray.federation.rounds import Rounds
from physfed_ray.methods.fedavg import FedAvg
from physfed_ray.rundir.long_table import MetricRow
from physfed_ray.runtime.inline import InlineRuntime

HOSTS = 2
SIZE = 64
WARM_UP = 2
CASES = {
    "equal, all of 16": ((16,) * 16, 1.0),
    "4 to 64 slices, all of 16": (tuple(np.geomspace(4, 64, 16).astype(int).tolist()), 1.0),
    "one of 96 among 15 of 8": ((96,) + (8,) * 15, 1.0),
    "4 to 64 slices, 4 of 16": (tuple(np.geomspace(4, 64, 16).astype(int).tolist()), 0.25),
    "4 to 64 slices, 8 of 64": (tuple(np.geomspace(4, 64, 64).astype(int).tolist()), 0.125),
}
"""Slices of each client, and the share of them that a round draws."""


def measure(slices: tuple[int, ...], participation: float, rounds: int) -> dict[str, Any]:
    """Return the share of time that hosts wait; call it in a process of its own."""
    torch.set_num_threads(1)
    rows: list[MetricRow] = []
    with tempfile.TemporaryDirectory() as folder:
        files = [write(Path(folder) / f"{i}.arrow", n, SIZE, 1, i)
                 for i, n in enumerate(slices)]  # fmt: skip
        method = FedAvg(FedAvg.Settings(), make_task(len(slices), SIZE, channels=16))
        spec = make_spec(method, len(slices), files, 1, batch_size=4)
        clients = tuple(replace(c, slices=n) for c, n in zip(spec.clients, slices, strict=True))
        spec = replace(spec, clients=clients)
        place = InlineRuntime(spec, HOSTS)
        settings = Federation(participation=participation)
        work = Rounds(spec, settings, place, None, lambda event: None, rows.extend)
        for number in range(1, WARM_UP + rounds + 1):
            work.run_round(number)
        host_of = {spec.clients[c].id: host for c, host in place.host_of.items()}
    idle = []
    for number, seconds in client_seconds(rows).items():
        busy = [0.0] * HOSTS
        for client, used in seconds.items():
            busy[host_of[client]] += used
        if number > WARM_UP:
            idle.append(1 - sum(busy) / (HOSTS * max(busy)))
    return {"idle": round(statistics.mean(idle), 3), "most": round(max(idle), 3)}


def main() -> None:
    """Measure every case and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    found = {name: run_alone(measure, *case, options.rounds) for name, case in CASES.items()}
    print(json.dumps({"benchmark": "idle", "hosts": HOSTS, "cases": found}))


if __name__ == "__main__":
    main()

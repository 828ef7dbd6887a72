"""Memory of driver, parameter server and hosts as the number of clients grows.

    python benchmarks/memory.py --clients 8 32 128

Clients that do no training share a vector of 41.2 million float32 (157 MiB) on 2 Ray hosts, as in
``round.py``; each number of clients has processes and a Ray of its own. All processes are sampled
from their start to the end of the last round. ``processes.py`` says what its columns mean: ``own``
is what counts, ``shared`` are pages of the object store, one copy of which serves all processes.
Prints one JSON line, MiB throughout.
"""

import argparse
import json
import tempfile
from pathlib import Path

import ray
import torch
from common import (
    ACTORS,
    make_empty_spec,
    make_rounds,
    make_runtime,
    round_seconds,
    run_alone,
    start_ray,
)
from processes import Peaks

HOSTS = 2
SIZE = 41_200_000


def measure(clients: int, size: int, rounds: int) -> dict[str, object]:
    """Return the peaks of a few rounds; call it in a process of its own."""
    torch.set_num_threads(1)
    start_ray(HOSTS)
    with tempfile.TemporaryDirectory() as folder, Peaks(ACTORS) as peaks:
        spec = make_empty_spec(clients, size, Path(folder))
        place = make_runtime(spec, [HOSTS])
        seconds = round_seconds(make_rounds(spec, place), 1, rounds)
        found = {"clients": clients, "seconds": [round(s, 3) for s in seconds]}
    ray.shutdown()
    return found | {"mib": peaks.report()}


def main() -> None:
    """Measure each number of clients and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--size", type=int, default=SIZE, help="shared parameters")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cases = [
        run_alone(measure, clients, options.size, options.rounds) for clients in options.clients
    ]
    model = round(options.size * 4 / 2**20, 1)
    print(json.dumps({"benchmark": "memory", "model_mib": model, "hosts": HOSTS, "cases": cases}))


if __name__ == "__main__":
    main()

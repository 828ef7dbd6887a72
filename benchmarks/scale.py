"""What a client-round costs with 1,000 clients beside 16: seconds, and memory of all processes.

    python benchmarks/scale.py --clients 16 1000

SCAN-PhysFed with about 0.25 million parameters (RED-CNN with 32 channels; the decoder is private
and keeps Adam's moments), one step of one 32 x 32 patch a client and round, 2 Ray hosts of one
core. A client-round costs a core's time: the seconds of a round, commit included, times hosts over
clients. Three cases: private states in memory, without a run directory; the same with a checkpoint
every round; and with 4 MB a host for private states, so that nearly all of them live on the disk
(at 16 clients as well). Every case has processes and a Ray of its own. ``mib`` are peaks from the
start to the last round (``processes.py`` says of what); ``together`` is to stay below 6 GiB, the
ratio of the costs below 1.3. Prints one JSON line.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from common import (
    ACTORS,
    client_seconds,
    make_rounds,
    make_runtime,
    make_spec,
    make_task,
    round_seconds,
    rounded,
    run_alone,
    spread,
    start_ray,
    write_random_slices,
)
from processes import Peaks

from physfed_ray.methods.scan_physfed import ScanPhysFed, ScanPhysFedSettings
from physfed_ray.rundir.long_table import MetricRow

HOSTS = 2
PATCH = 32
DIM = 16
FILES = 4
WARM_UP = 2
CLIENT_ROUNDS = 400
"""Client-rounds that are measured at least, so that a few clients run for more rounds."""
CASES = {"memory": (False, 2048.0), "checkpoints": (True, 2048.0), "disk": (False, 4.0)}
"""Whether checkpoints are written, and the memory of a host for private states, MB."""


def make_method(clients: int) -> ScanPhysFed:
    """Return SCAN-PhysFed with about 0.25 million parameters."""
    settings = ScanPhysFedSettings(anatomy_hidden_dim=32, map_size=8)
    return ScanPhysFed(settings, make_task(clients, PATCH, DIM, channels=32))


def measure(
    clients: int, rounds: int, checkpoints: bool, private_memory_mb: float
) -> dict[str, Any]:
    """Return time and memory of a federation; call it in a process of its own."""
    torch.set_num_threads(1)
    start_ray(HOSTS)
    rows: list[MetricRow] = []
    with tempfile.TemporaryDirectory() as folder, Peaks(ACTORS, every_s=1.0) as peaks:
        files = [
            write_random_slices(Path(folder) / f"{i}.arrow", 1, PATCH, DIM, i) for i in range(FILES)
        ]
        root = f"{folder}/run" if checkpoints else None
        spec = make_spec(
            make_method(clients), clients, files, 1, root, private_memory_mb, patch=PATCH
        )
        seconds = round_seconds(
            make_rounds(spec, make_runtime(spec, [HOSTS]), rows), 1, WARM_UP + rounds
        )[WARM_UP:]
        ray.shutdown()
    training = [s for part in client_seconds(rows).values() for s in part.values()]
    cost = statistics.median(seconds) * HOSTS / clients
    return {
        "clients": clients,
        "rounds": rounds,
        **spread(seconds),
        "client_round_ms": rounded(1000 * cost),
        "training_ms": rounded(1000 * statistics.median(training)),
        "mib": peaks.report(),
    }


def main() -> None:
    """Measure every case at every number of clients and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 1000])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, at least")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    results = {}
    for name in options.cases:
        cases = [
            run_alone(
                measure,
                clients,
                max(options.rounds, CLIENT_ROUNDS // clients),
                *CASES[name],
            )
            for clients in options.clients
        ]
        ratio = cases[-1]["client_round_ms"] / cases[0]["client_round_ms"]
        results[name] = {"ratio": round(ratio, 3), "clients": cases}
    method = make_method(2)
    counts = {
        n: sum(p.numel() for p in c.parameters()) for n, c in method.build(1).named_children()
    }
    print(
        json.dumps({"benchmark": "scale", "hosts": HOSTS, "parameters": counts, "cases": results})
    )


if __name__ == "__main__":
    main()

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
import os
import tempfile
from pathlib import Path

import ray
import torch
from common import (
    copy_seconds,
    make_empty_spec,
    make_rounds,
    make_runtime,
    round_seconds,
    rounded,
    spread,
    start_ray,
)

HOSTS = 2
REPEATS = 9
WARM_UP = 2
CASES = ((8, 1_850_000), (64, 1_850_000), (8, 40_000_000), (64, 40_000_000))


def measure(clients: int, size: int, folder: Path) -> dict[str, float]:
    """Return the time of a round, of a copy, and the bound."""
    spec = make_empty_spec(clients, size, folder)
    place = make_runtime(spec, [HOSTS])
    times = round_seconds(make_rounds(spec, place), 1, WARM_UP + REPEATS)[WARM_UP:]
    place.close()
    copy = copy_seconds(size)
    bound = 0.03 + 3 * copy * clients / HOSTS + 6 * copy * HOSTS
    found = {"clients": clients, "parameters": size, "hosts": HOSTS, **spread(times)}
    return found | {
        "copy_seconds": rounded(copy),
        "bound_seconds": rounded(bound),
        "share_of_bound": round(found["seconds"] / bound, 2),
    }


def main() -> None:
    """Measure every case and print one line of JSON."""
    torch.set_num_threads(1)
    os.environ.setdefault("RAY_preallocate_plasma_memory", "1")
    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(clients, size, Path(folder)) for clients, size in CASES]
    ray.shutdown()
    print(json.dumps({"benchmark": "round", "cases": results}))


if __name__ == "__main__":
    main()

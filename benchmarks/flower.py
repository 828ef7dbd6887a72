"""The empty round beside Flower's Ray simulation: seconds and memory, in the same run.

    python -m venv FLOWER && FLOWER/bin/pip install "flwr[simulation]==1.42.*"
    python benchmarks/flower.py --flower-python FLOWER/bin/python

Clients that do no training, 2 cores. Flower: FedAvg, NumPy parameters in one array, the client
returns what it received (``flower_app.py``), one CPU a client, so that two run at a time. Ours: 2
hosts, as in ``round.py``. Neither evaluates or writes checkpoints. Both take turns, each turn in
fresh processes with a Ray of its own, whose object store has the same size and is mapped beforehand
on both sides; the first rounds of a turn are not counted. Then the peak memory of both with a model
of 157 MiB (not mapped beforehand; Flower's driver is its server as well). ``memory.py`` shows ours
at more clients. Prints one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import memory
import ray
import torch
from common import (
    STORE_BYTES,
    make_empty_spec,
    make_rounds,
    make_runtime,
    round_seconds,
    run_alone,
    spread,
    start_ray,
)

CPUS = 2
WARM_UP = 2
CASES = ((8, 1_850_000), (64, 1_850_000), (8, 40_000_000))
MAPPED = {"RAY_preallocate_plasma_memory": "1"}
APP = Path(__file__).with_name("flower_app.py")


def our_seconds(clients: int, size: int, rounds: int) -> list[float]:
    """Return the seconds of each round; call it in a process of its own."""
    torch.set_num_threads(1)
    os.environ.update(MAPPED)
    start_ray(CPUS)
    with tempfile.TemporaryDirectory() as folder:
        spec = make_empty_spec(clients, size, Path(folder))
        seconds = round_seconds(make_rounds(spec, make_runtime(spec, [CPUS])), 1, rounds)
    ray.shutdown()
    return seconds


def flower(python: str, clients: int, size: int, rounds: int, *flags: str) -> dict[str, Any]:
    """Return what a run of Flower's simulation printed."""
    numbers = {"clients": clients, "size": size, "rounds": rounds, "cpus": CPUS}
    command = [python, str(APP), f"--object-store={STORE_BYTES}", *flags]
    command += [f"--{name}={value}" for name, value in numbers.items()]
    with tempfile.TemporaryDirectory() as home:
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": home}
        quiet |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "OMP_NUM_THREADS": "1"}
        environment = os.environ | quiet | ({} if "--memory" in flags else MAPPED)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"Flower's simulation failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare_speed(python: str, clients: int, size: int, turns: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of a round of both, taken in turns."""
    theirs: list[float] = []
    ours: list[float] = []
    version = ""
    for _ in range(turns):
        found = flower(python, clients, size, WARM_UP + rounds)
        version = found["version"]
        theirs += found["seconds"][WARM_UP:]
        ours += run_alone(our_seconds, clients, size, WARM_UP + rounds)[WARM_UP:]
    return {
        "clients": clients,
        "parameters": size,
        "flower_version": version,
        "rounds": len(ours),
        "flower": spread(theirs),
        "ours": spread(ours),
        "ratio": round(statistics.median(theirs) / statistics.median(ours), 1),
        "ratio_worst": round(min(theirs) / max(ours), 1),
    }


def compare_memory(python: str, clients: int) -> dict[str, Any]:
    """Return the peak memory of both over two rounds."""
    theirs = flower(python, clients, memory.SIZE, 2, "--memory")["memory"][0]
    ours = run_alone(memory.measure, clients, memory.SIZE, 2)["mib"]
    return {"clients": clients, "flower_mib": theirs, "ours_mib": ours}


def main() -> None:
    """Measure both and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flower-python", required=True, help="Python that has flwr[simulation]")
    parser.add_argument("--turns", type=int, default=3, help="runs of each side")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a run that count")
    parser.add_argument("--cases", type=int, nargs="*", default=[0, 1, 2], help="which of CASES")
    parser.add_argument("--memory-clients", type=int, nargs="*", default=[8, 32])
    options = parser.parse_args()
    python = options.flower_python
    speed = [
        compare_speed(python, *CASES[case], options.turns, options.rounds) for case in options.cases
    ]
    peaks = [compare_memory(python, clients) for clients in options.memory_clients]
    result = {"benchmark": "flower", "cpus": CPUS, "speed": speed, "memory": peaks}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

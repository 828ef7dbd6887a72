"""The empty round beside pfl-research and Flower: seconds and memory, in the same run.

    python -m venv PFL && PFL/bin/pip install "pfl[pytorch]==0.6.*"
    python -m venv FLOWER && FLOWER/bin/pip install "flwr[simulation]==1.42.*"
    python benchmarks/pfl.py --pfl-python PFL/bin/python --flower-python FLOWER/bin/python

Clients that do no training, 2 cores. pfl: FedAvg in one process (``pfl_app.py``), with as many
threads as there are cores. Flower: ``flower_app.py``, one CPU a client. Ours: on Ray, 2 hosts of
one thread, and inline, one process with one thread. Nobody evaluates or writes checkpoints. All
take turns, each turn in fresh processes; the first rounds of a turn are not counted. Nothing is
mapped beforehand.

The memory is that of a turn of its own: the largest sum of the proportional set sizes (PSS) of a
side's processes at one moment, from start to end, so with Ray's own processes and every page of its
object store that was ever written. With ``--growth``, ours over 200 rounds instead: what the own
memory of each process (RssAnon) and the store gained a round between the 20th and the last. Prints
one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from processes import descendants, memory

CPUS = 2
WARM_UP = 3
CASES = ((8, 1_850_000), (64, 1_850_000), (8, 40_000_000), (64, 40_000_000), (1000, 250_000))
TOO_LARGE = {"flower": {(64, 40_000_000)}}
"""Cases that need more than the 24 GiB of the machine that this was written on."""
HERE = Path(__file__).parent
STORE_BYTES = 2 * 2**30
GROWTH_ROUNDS = 200
SETTLED = 20
"""Rounds after which memory is to grow no more."""


def ours(runtime: str, clients: int, size: int, rounds: int, growth: bool) -> dict[str, Any]:
    """Run our empty rounds in this process; call it in one of its own."""
    import ray
    import torch
    from common import make_empty_spec, make_rounds, make_runtime, round_seconds, start_ray

    from physfed_ray.runtime.inline import InlineRuntime

    torch.set_num_threads(1)
    if runtime == "ray":
        start_ray(CPUS)
    with tempfile.TemporaryDirectory() as folder:
        spec = make_empty_spec(clients, size, Path(folder))
        place: Any = make_runtime(spec, [CPUS]) if runtime == "ray" else InlineRuntime(spec)
        work = make_rounds(spec, place)
        if not growth:
            return {"seconds": round_seconds(work, 1, rounds)}
        round_seconds(work, 1, SETTLED)
        before = held()
        round_seconds(work, SETTLED + 1, rounds)
        after = held()
    ray.shutdown()
    gained = {
        f"{title} {pid}": round((after[pid][1] - own) / (rounds - SETTLED), 4)
        for pid, (title, own) in before.items()
        if pid in after
    }
    return {"seconds": [], "mib_a_round": gained}


def held() -> dict[int, tuple[str, float]]:
    """Return the title and the own memory, MiB, of this process and all below it."""
    tree = {os.getpid(): "driver", **descendants(os.getpid())}
    return {pid: (Path(t).name or t, memory(pid)["own"]) for pid, t in tree.items() if memory(pid)}


def command(side: str, pythons: dict[str, str], clients: int, size: int, rounds: int) -> list[str]:
    """Return the command of one turn of a side."""
    case = [f"--clients={clients}", f"--size={size}", f"--rounds={rounds}"]
    if side == "pfl":  # -P: this very file is called as the package that it imports
        return [pythons[side], "-P", str(HERE / "pfl_app.py"), *case, f"--threads={CPUS}"]
    if side == "flower":
        store = [f"--cpus={CPUS}", f"--object-store={STORE_BYTES}"]
        return [pythons[side], str(HERE / "flower_app.py"), *case, *store]
    return [sys.executable, __file__, f"--side={side}", *case]


def turn(words: list[str], sampled: bool = False) -> dict[str, Any]:
    """Run one turn; return what it printed, and its peak memory where that is asked for."""
    with tempfile.TemporaryDirectory() as home:
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": home, "OMP_NUM_THREADS": "1"}
        quiet |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        if "pfl_app.py" in " ".join(words):
            del quiet["OMP_NUM_THREADS"]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | quiet,
        )
        peak = [0.0]
        watch = threading.Thread(target=watch_memory, args=(process, peak), daemon=True)
        if sampled:
            watch.start()
        output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {errors[-2000:]}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found | {"mib": round(peak[0])}


def watch_memory(process: "subprocess.Popen[str]", peak: list[float]) -> None:
    """Keep the largest PSS, MiB, of a process and all below it while it runs."""
    while process.poll() is None:
        tree = [process.pid, *descendants(process.pid)]
        peak[0] = max(peak[0], sum(memory(pid).get("pss", 0.0) for pid in tree))
        time.sleep(0.1)


def compare(
    sides: list[str], pythons: dict[str, str], case: tuple[int, int], turns: int, rounds: int
) -> dict[str, Any]:
    """Return the seconds of a round and the peak memory of every side, taken in turns."""
    able = [side for side in sides if case not in TOO_LARGE.get(side, ())]
    seconds: dict[str, list[float]] = {side: [] for side in able}
    versions: dict[str, str] = {}
    for _ in range(turns):
        for side in able:
            found = turn(command(side, pythons, *case, WARM_UP + rounds))
            seconds[side] += found["seconds"][-rounds:]
            versions[side] = found.get("version", "")
    result: dict[str, Any] = {"clients": case[0], "parameters": case[1]}
    for side in able:
        mib = turn(command(side, pythons, *case, WARM_UP), sampled=True)["mib"]
        median = statistics.median(seconds[side])
        spread = {"min": min(seconds[side]), "max": max(seconds[side])}
        result[side] = {"seconds": float(f"{median:.3g}"), "mib": mib}
        result[side] |= {k: float(f"{v:.3g}") for k, v in spread.items()}
        result[side] |= {"version": versions[side]} if versions[side] else {}
        print(json.dumps({"case": case, side: result[side]}), file=sys.stderr, flush=True)
    return result


def main() -> None:
    """Measure every case and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pfl-python", help="Python that has pfl[pytorch]")
    parser.add_argument("--flower-python", help="Python that has flwr[simulation]")
    parser.add_argument("--turns", type=int, default=3, help="turns of each side")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a turn that count")
    parser.add_argument("--cases", type=int, nargs="*", default=list(range(len(CASES))))
    parser.add_argument("--growth", action="store_true", help="ours over 200 rounds")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        numbers = options.clients, options.size, options.rounds
        print(json.dumps(ours(options.side, *numbers, options.growth)))
        return
    if options.growth:
        for_both = {s: turn([*command(s, {}, 8, 1_850_000, GROWTH_ROUNDS), "--growth"])
                    for s in ("ray", "inline")}  # fmt: skip
        print(json.dumps({"benchmark": "pfl", "growth": for_both}))
        return
    pythons = {"pfl": options.pfl_python, "flower": options.flower_python}
    sides = [side for side in pythons if pythons[side]] + ["ray", "inline"]
    cases = [
        compare(sides, pythons, CASES[case], options.turns, options.rounds)
        for case in options.cases
    ]
    print(json.dumps({"benchmark": "pfl", "cpus": CPUS, "cases": cases}))


if __name__ == "__main__":
    main()

"""A run whose processes are killed at random, and one to which nothing happens: are they equal?

    python benchmarks/chaos.py --minutes 20 [--seed 1] [--every 15]

A Ray cluster of three nodes on this machine, a federation that trains on it, and SIGKILL every
``--every`` seconds on average (exponential) to one of: a host, the parameter server, a whole node
(another joins after a while), the driver (which is then resumed). After so many minutes the run is
left alone; its last checkpoint must equal, bit for bit, that of a run that was never disturbed.

Prints one JSON line: kills by kind, rounds, seconds of both runs, what the user was told, and
whether the checkpoints are equal. If they are not, both runs are kept and the exit status is 1.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from processes import descendants
from ray.cluster_utils import Cluster
from safetensors.numpy import load_file

EXPERIMENT = """
name: chaos
seed: 1
data:
  source: {{phantom: {{patients: 10, slices: 3}}}}
  image_size: 48
  test_patients: 1
  validation_patients: 1
clients: "paper-*"
backbone: {{name: red_cnn, channels: 4}}
method: {{name: scan_physfed}}
training: {{rounds: {rounds}, batch_size: 2, patch: 32, patches_per_slice: {patches},
            evaluate_every: 20}}
federation: {{replace_s: 30, checkpoint_every: 3}}
"""
STORE_BYTES = 80 * 2**20
FAILURES = 20
"""Times that the driver may end by itself, with an error, before this gives up."""
KINDS = ("host", "server", "node", "driver")
SYSTEM = {"health_check_period_ms": 500, "health_check_failure_threshold": 5}


class Chaos:
    """A cluster, a run on it, and the one who kills.

    Args:
        folder: Where everything is written.
        rounds: Rounds of the run.
        patches: Patches per slice, which sets how long a round takes.
        seed: Of the kills.
    """

    def __init__(self, folder: Path, rounds: int, patches: int, seed: int) -> None:
        self.folder, self.rounds = folder, rounds
        self.kills: Counter[str] = Counter()
        self.failures: list[str] = []
        self._random = random.Random(seed)
        self._file = folder / "chaos.yaml"
        self._file.write_text(EXPERIMENT.format(rounds=rounds, patches=patches))
        self._log = (folder / "chaos.txt").open("w")
        self._cluster = Cluster()
        self._cluster.add_node(
            num_cpus=0,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            _system_config=SYSTEM,
        )
        # A driver joins the node that has its own address: always the head.
        self._addresses = count(2)
        self._nodes = [self._add_node() for _ in range(2)]
        self._joins: list[float] = []
        self.driver = self._start_driver()

    def _add_node(self) -> Any:
        address = f"127.0.0.{next(self._addresses)}"
        return self._cluster.add_node(
            num_cpus=1, object_store_memory=STORE_BYTES, node_ip_address=address
        )

    def _start_driver(self) -> subprocess.Popen[bytes]:
        arguments = ["--out", "disturbed", "--address", self._cluster.address, "--resume"]
        return self._physfed(*arguments)

    def _physfed(self, *arguments: str) -> subprocess.Popen[bytes]:
        physfed = Path(sys.executable).with_name("physfed")
        return subprocess.Popen(
            [physfed, "run", self._file, *arguments],
            cwd=self.folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PHYSFED_CACHE": str(self.folder / "cache"), "PYTHONUNBUFFERED": "1"},
        )

    def undisturbed(self) -> float:
        """Do the run in one process, to which nothing happens; return its seconds."""
        began = time.monotonic()
        if self._physfed("--out", "undisturbed", "--runtime", "inline").wait():
            raise SystemExit(f"the undisturbed run failed: {self.last_line()}")
        return time.monotonic() - began

    def step(self) -> None:
        """Kill something, chosen at random."""
        kind = self._random.choice(KINDS)
        if self._kill(kind):
            self.kills[kind] += 1

    def wait(self, until: float) -> None:
        """Wait until a moment or the end of the run, and tend the run meanwhile."""
        while time.monotonic() < until and self.driver.poll() != 0:
            self.tend()
            time.sleep(0.2)

    def tend(self) -> None:
        """Resume a driver that ended too early, and let nodes join in the place of lost ones."""
        if self._joins and time.monotonic() > self._joins[0]:
            self._joins.pop(0)
            self._nodes.append(self._add_node())
        status = self.driver.poll()
        if status:  # 0 and None are well
            if status != -signal.SIGKILL:
                self.failures.append(self.last_line())
            if len(self.failures) > FAILURES:
                raise SystemExit(f"the run ends by itself again and again: {self.failures}")
            self.driver = self._start_driver()

    def last_line(self) -> str:
        """Return the last thing that the user was told."""
        return (self.folder / "chaos.txt").read_text().strip().splitlines()[-1]

    def _kill(self, kind: str) -> bool:
        if kind == "node":
            if len(self._nodes) < 2:
                return False
            node = self._nodes.pop(self._random.randrange(len(self._nodes)))
            for pid in _processes(node):
                _kill(pid)
            self._cluster.remove_node(node, allow_graceful=False)
            self._joins.append(time.monotonic() + self._random.uniform(0, 40))
            return True
        if kind == "driver":
            _kill(self.driver.pid)
            self.driver.wait()
            return True
        title = "ray::HostActor" if kind == "host" else "ray::ServerActor"
        nodes = [self._cluster.head_node, *self._nodes]
        found = [pid for node in nodes for pid, name in _processes(node).items() if title in name]
        if found:
            _kill(self._random.choice(sorted(found)))
        return bool(found)

    def close(self) -> None:
        """End the cluster."""
        _kill(self.driver.pid)
        self.driver.wait()
        self._cluster.shutdown()


def last_checkpoint(run: Path) -> dict[str, bytes]:
    """Return every tensor of a run's last checkpoint as bytes."""
    last = sorted(run.glob("checkpoints/round-*"))[-1]
    return {
        f"{file.relative_to(run)}/{name}": value.tobytes()
        for file in sorted(last.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def kill_times(minutes: float, every: float, seed: int) -> Iterator[float]:
    """Yield when to kill, in seconds of the monotonic clock, for so many minutes."""
    rng, now = random.Random(f"times {seed}"), time.monotonic()
    ends = now + 60 * minutes
    while (now := now + rng.expovariate(1 / every)) < ends:
        yield now


def _processes(node: Any) -> dict[int, str]:
    """Return the titles of a node's processes and of all below them, by id."""
    roots = [p.process.pid for processes in node.all_processes.values() for p in processes]
    return {pid: title for root in roots for pid, title in {root: "", **descendants(root)}.items()}


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main() -> int:
    """Measure, print a JSON line, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every", type=float, default=15, help="seconds between kills, mean")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, help="default: enough to outlast the kills")
    parser.add_argument("--patches", type=int, default=16, help="per slice")
    options = parser.parse_args()
    rounds = options.rounds or 3 * max(4, round(20 * options.minutes))
    folder = Path(mkdtemp(prefix="chaos-"))
    began = time.monotonic()
    chaos = Chaos(folder, rounds, options.patches, options.seed)
    try:
        for moment in kill_times(options.minutes, options.every, options.seed):
            chaos.wait(moment)
            if chaos.driver.poll() == 0:
                break
            chaos.step()
        chaos.wait(math.inf)
    finally:
        chaos.close()
    disturbed_s = time.monotonic() - began
    text = (folder / "chaos.txt").read_text()
    calm_s = chaos.undisturbed()
    disturbed, calm = (last_checkpoint(folder / name) for name in ("disturbed", "undisturbed"))
    differing = sorted(k for k in {*disturbed, *calm} if disturbed.get(k) != calm.get(k))
    result = {
        "kills": dict(chaos.kills),
        "rounds": rounds,
        "repeated": len(re.findall(r"^round \d+/", text, re.M)) - rounds,
        "replaced": text.count("replaced, "),
        "moved": text.count("clients moved to other hosts"),
        "failures": chaos.failures,
        "disturbed_s": round(disturbed_s, 1),
        "undisturbed_inline_s": round(calm_s, 1),
        "equal": not differing,
    }
    if differing:
        result |= {"differing": len(differing), "first": differing[:5], "kept": str(folder)}
    else:
        shutil.rmtree(folder)
    print(json.dumps(result))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())

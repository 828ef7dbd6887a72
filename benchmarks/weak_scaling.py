"""What part of a round is not client work on 1, 2 and 4 nodes, and what it is made of.

    python benchmarks/weak_scaling.py

Nodes are Ray nodes on this machine, each with an object store of its own, one CPU, one host and
the same number of clients, so that the work grows with the nodes: SCAN-PhysFed, a few real steps a
client. ``client`` is the time that the slowest host's clients spend in training: the sum of their
own ``seconds``, which grow with the nodes here, where all share the cores. All else is overhead:

* ``publish``: the server puts the shared vector and the codes into its object store;
* ``host``: the rest of the hosts' call: the vector's way to the node, loading it and the private
  state, the sum, writing private states (with checkpoints), Ray's call, and waiting for a core;
* ``combine``: the sum of the hosts of a node; ``aggregate``: the sums' way to the server, the
  average, the codes;
* ``commit``: the server's file, the metrics and the manifest (with checkpoints);
* ``driver``: the rest.

Each is measured from outside, waiting for its end, medians over rounds. Beside it an empty round
(one parameter, a client a node without training): what Ray's calls cost. Then the constants that
the model of the round time in docs/performance.md takes from here. Prints one JSON line.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from common import (
    client_seconds,
    copy_seconds,
    make_empty_spec,
    make_rounds,
    make_runtime,
    make_spec,
    make_task,
    round_seconds,
    rounded,
    run_alone,
    write_random_slices,
)
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.server import ParameterServer
from physfed_ray.methods.scan_physfed import ScanPhysFed, ScanPhysFedSettings
from physfed_ray.rundir.long_table import MetricRow

STORE_BYTES = 512 * 2**20
WARM_UP = 2
IMAGE = 64
DIM = 384
SLICES = 8
SIZE = 10_000_000
"""Parameters of the vectors with which constants are measured, 40 MB."""


class Stopwatch:
    """Notes how long calls of an object's methods take.

    Attributes:
        seconds: Of the calls since it was last cleared, by label.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: object, name: str, label: str, wait: bool = False) -> None:
        """Time one method of one object from now on.

        Args:
            owner: The object.
            name: Its method.
            label: What to count it as; ``{}`` is replaced by the first argument.
            wait: Also wait for what the returned handles name.
        """
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            answer = method(*arguments, **named)
            if wait and answer:
                ray.wait(list(answer), num_returns=len(answer), fetch_local=False)
            key = label.format(*arguments[:1])
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - began
            return answer

        setattr(owner, name, timed)


def start_cluster(nodes: int) -> Cluster:
    """Start a Ray cluster of that many nodes on this machine and join it."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(**node)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    return cluster


def breakdown(rounds: Rounds, rows: list[MetricRow], count: int) -> dict[str, float]:
    """Return the median seconds of a round and of its parts."""
    place, watch = rounds.runtime, Stopwatch()
    watch.watch(place, "publish", "publish", wait=True)
    watch.watch(place, "train", "train")
    watch.watch(place, "combine", "combine", wait=True)
    watch.watch(place, "server", "{}")
    if rounds.directory is not None:
        watch.watch(rounds.metrics, "write", "commit")
        watch.watch(rounds.directory, "commit", "commit")
        watch.watch(rounds.directory, "prune", "commit")
    parts: list[dict[str, float]] = []
    for number in range(1, WARM_UP + count + 1):
        watch.seconds.clear()
        total = round_seconds(rounds, number, number)[0]
        own = client_seconds(rows)[number]
        hosts = [[rounds.spec.clients[c].id for c in clients] for clients in place.assignment]
        client = max(sum(own[name] for name in names) for names in hosts)
        spent = watch.seconds
        part = {"publish": spent["publish"], "client": client, "host": spent["train"] - client}
        part |= {"combine": spent["combine"], "aggregate": spent["aggregate"]}
        part["commit"] = spent.get("save", 0.0) + spent.get("commit", 0.0)
        part["driver"] = total - sum(part.values())
        parts.append({"round": total} | part)
    return {name: rounded(statistics.median(p[name] for p in parts[WARM_UP:])) for name in parts[0]}


def measure(nodes: int, clients: int, count: int) -> dict[str, Any]:
    """Return a round's parts on so many nodes; call it in a process of its own."""
    torch.set_num_threads(1)
    cluster = start_cluster(nodes)
    found: dict[str, Any] = {"nodes": nodes, "clients": nodes * clients}
    with tempfile.TemporaryDirectory() as folder:
        file = write_random_slices(Path(folder) / "one.arrow", SLICES, IMAGE, DIM)
        task = make_task(nodes * clients, IMAGE, DIM, channels=32)
        method = ScanPhysFed(ScanPhysFedSettings(), task)
        for name, root in {"checkpoints_off": None, "checkpoints_on": f"{folder}/run"}.items():
            rows: list[MetricRow] = []
            spec = make_spec(method, nodes * clients, [file], SLICES, root, batch_size=4)
            place = make_runtime(spec, [1] * nodes)
            parts = breakdown(make_rounds(spec, place, rows), rows, count)
            place.close()
            share = round(1 - parts["client"] / parts["round"], 3)
            found[name] = parts | {"not_client_work": share}
        spec = make_empty_spec(nodes, 1, Path(folder))
        place = make_runtime(spec, [1] * nodes)
        empty = round_seconds(make_rounds(spec, place), 1, WARM_UP + 4 * count)[WARM_UP:]
        place.close()
    found["empty_round"] = rounded(statistics.median(empty))
    if nodes > 1:
        found["between_nodes_bytes_per_s"] = rounded(between_nodes())
    ray.shutdown()
    cluster.shutdown()
    return found


def between_nodes() -> float:
    """Return the bytes a second from another node's object store to the driver's (loopback)."""
    here = ray.get_runtime_context().get_node_id()
    other = next(n["NodeID"] for n in ray.nodes() if n["NodeID"] != here)
    strategy = NodeAffinitySchedulingStrategy(other, soft=False)
    make = ray.remote(num_cpus=1, scheduling_strategy=strategy)(np.ones)
    times = []
    for _ in range(5):
        handle = make.remote(SIZE, np.float32)
        ray.wait([handle], fetch_local=False)
        began = time.perf_counter()
        ray.get(handle)
        times.append(time.perf_counter() - began)
        del handle
    return 4 * SIZE / statistics.median(times)


def constants() -> dict[str, float]:
    """Return what a byte and a client cost on one machine; call it in a process of its own."""
    torch.set_num_threads(1)
    cluster = start_cluster(1)
    vector = np.ones(SIZE, np.float32)
    puts, gets = [], []
    for _ in range(7):
        began = time.perf_counter()
        handle = ray.put(vector)
        middle = time.perf_counter()
        ray.get(handle)
        gets.append(time.perf_counter() - middle)
        puts.append(middle - began)
        del handle
    with tempfile.TemporaryDirectory() as folder:
        times = {n: empty_seconds(n, 1, Path(folder)) for n in (1, 257)}
    ray.shutdown()
    cluster.shutdown()
    return {
        "copy_bytes_per_s": rounded(4 * SIZE / copy_seconds(SIZE)),
        "put_bytes_per_s": rounded(4 * SIZE / statistics.median(puts[2:])),
        "get_seconds": rounded(statistics.median(gets[2:])),
        "server_sum_bytes_per_s": rounded(4 * SIZE / server_seconds_a_piece()),
        "client_fixed_seconds": rounded((times[257] - times[1]) / 256),
    }


def empty_seconds(clients: int, size: int, folder: Path) -> float:
    """Return the median seconds of an empty round on one host."""
    spec = make_empty_spec(clients, size, folder)
    place = make_runtime(spec, [1])
    seconds = round_seconds(make_rounds(spec, place), 1, 12)[WARM_UP:]
    place.close()
    return statistics.median(seconds)


def server_seconds_a_piece() -> float:
    """Return the seconds that the parameter server takes for each further vector."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for clients in (2, 16):
            server = ParameterServer(make_empty_spec(clients, SIZE, Path(folder)))
            pieces = [{(0, i): np.ones(SIZE, np.float32)} for i in range(clients)]
            taken = []
            for number in range(7):
                began = time.perf_counter()
                server.aggregate(number, range(clients), {}, [], False, *pieces)
                taken.append(time.perf_counter() - began)
            times[clients] = statistics.median(taken[2:])
    return (times[16] - times[2]) / 14


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clients", type=int, default=4, help="clients of a node")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    options = parser.parse_args()
    cases = [run_alone(measure, n, options.clients, options.rounds) for n in options.nodes]
    method = ScanPhysFed(ScanPhysFedSettings(), make_task(2, IMAGE, DIM, channels=32))
    counts = {
        n: sum(p.numel() for p in c.parameters()) for n, c in method.build(1).named_children()
    }
    result = {"benchmark": "weak_scaling", "parameters": counts, "cases": cases}
    print(json.dumps(result | {"constants": run_alone(constants)}))


if __name__ == "__main__":
    main()

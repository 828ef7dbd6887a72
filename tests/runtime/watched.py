"""Runs a federation and a host beside it on a Ray of its own, and prints what Prometheus reads.

A process of its own, because Ray's report interval is set before Ray starts.
"""

import sys
import time
import urllib.request
from pathlib import Path

import ray

from physfed_ray.experiment import load_experiment
from physfed_ray.federation.client.training import ClientResult
from physfed_ray.runtime.metrics import NAMED_CLIENTS, HostMetrics, RunMetrics
from physfed_ray.runtime.run import run_experiment

REPORT_S = 1.0
HOST_ROUNDS = 6


class Watched:
    """An actor with a host's metrics; trains nothing."""

    def __init__(self) -> None:
        self._metrics = HostMetrics("watched", "host-0")

    def work(self) -> None:
        """Complete some client rounds, miss one, and stay in the next."""
        for left in reversed(range(HOST_ROUNDS)):
            self._metrics.begin(f"c{left}", left)
            self._metrics.done(ClientResult(f"c{left}", seconds=0.5))
        self._metrics.begin("late", 7)
        self._metrics.done(ClientResult("late", missing="missed the deadline after 3 batches"))
        self._metrics.begin("slow", 5)


def exposition() -> str:
    """Return the text of the node's Prometheus endpoint."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def main(folder: Path) -> None:
    """Run everything, then wait until every process has reported and stale values are gone."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
    done = RunMetrics("done")
    done({"event": "prepare", "done": 1, "total": 1, "cached": 0})
    done({"event": "done", "run_dir": "runs/done"})
    many = RunMetrics("many")
    scores = {f"c{i}": {"psnr": 20.0 + i, "ssim": 0.5} for i in range(NAMED_CLIENTS + 1)}
    scores["broken"] = {"psnr": float("nan"), "ssim": float("inf")}
    many({"event": "evaluation", "round": 1, "split": "test", "scores": scores})
    actor = ray.remote(Watched).options(num_cpus=0).remote()
    ray.get(actor.work.remote())
    experiment = load_experiment(folder / "watched.yaml", [f"data.cache={folder / 'cache'}"])
    metrics = RunMetrics("watched")
    run_experiment(
        experiment,
        folder / "run",
        runtime="inline",
        on_event=lambda event: None if event["event"] == "done" else metrics(event),
    )
    time.sleep(4 * REPORT_S)
    give_up = time.monotonic() + 60
    while 'run="watched",split="test"' not in (text := exposition()) and time.monotonic() < give_up:
        time.sleep(0.5)
    print(text)
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

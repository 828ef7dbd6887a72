"""The empty round in Flower: FedAvg over clients that return the parameters unchanged.

Run by ``flower.py`` in Flower's own environment. One float32 array, NumPy on both sides, no
evaluation on clients, one CPU a client. A round is timed between two calls of the strategy's
central evaluation, which does nothing else. Prints one JSON line.
"""

import argparse
import importlib.metadata
import itertools
import json
import time
from contextlib import nullcontext

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from processes import Peaks

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Take the parameters out of the message and send them back."""
    weights = message.content["arrays"].to_numpy_ndarrays()
    content = {"arrays": ArrayRecord(weights), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)


def main() -> None:
    """Run one simulation and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="parameters")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--object-store", type=int, required=True, help="bytes")
    parser.add_argument("--memory", action="store_true", help="sample the memory as well")
    options = parser.parse_args()
    ends: list[float] = []
    took_part: list[int] = []
    peaks: list[dict[str, object]] = []
    server_app = ServerApp()

    def count(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        took_part.append(len(replies))
        return MetricRecord({"clients": len(replies)})

    def note(number: int, arrays: ArrayRecord) -> None:
        ends.append(time.perf_counter())

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_evaluate=0.0,
            min_train_nodes=options.clients,
            min_available_nodes=options.clients,
            train_metrics_aggr_fn=count,
        )
        initial = ArrayRecord([np.zeros(options.size, np.float32)])
        run = {"initial_arrays": initial, "num_rounds": options.rounds, "evaluate_fn": note}
        with Peaks({"hosts": "ClientAppActor"}) if options.memory else nullcontext() as sampled:
            strategy.start(grid, **run)
        if sampled is not None:
            peaks.append(sampled.report())

    run_simulation(
        server_app,
        client_app,
        options.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                "address": "local",
                "num_cpus": options.cpus,
                "object_store_memory": options.object_store,
            },
        },
    )
    if took_part != [options.clients] * options.rounds:
        raise SystemExit(f"clients that took part in each round: {took_part}")
    seconds = [b - a for a, b in itertools.pairwise(ends)]
    version = importlib.metadata.version("flwr")
    print(json.dumps({"version": version, "seconds": seconds, "memory": peaks}))


if __name__ == "__main__":
    main()

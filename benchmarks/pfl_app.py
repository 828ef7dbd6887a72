"""The empty round in pfl-research: FedAvg over clients that train no epoch, in one process.

Run by ``pfl.py`` in pfl's own environment. One float32 parameter vector, PyTorch, SGD with a step
of 1 on the server, no evaluation after the first iteration, which is a warm-up. Prints one JSON
line.
"""

import argparse
import importlib.metadata
import json
import time

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel


class Weights(torch.nn.Module):
    """Nothing but parameters."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size))

    def loss(self, x: torch.Tensor, eval: bool = False) -> torch.Tensor:
        """Return a loss, which nobody asks for."""
        return self.weight[0] * x.sum()

    def metrics(self, x: torch.Tensor, eval: bool = False) -> dict[str, object]:
        """Return no metric."""
        return {}


class Clock(TrainingProcessCallback):
    """Notes when each iteration has ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Note the time."""
        self.ends.append(time.perf_counter())
        return False, Metrics()


def main() -> None:
    """Run one simulation and print the seconds of its rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("clients", "size", "rounds", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    users = list(range(options.clients))
    data = FederatedDataset(
        lambda user: Dataset([torch.zeros(1)], user_id=str(user)),
        get_user_sampler("minimize_reuse", users),
    )
    network = Weights(options.size)
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))
    clock = Clock()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=options.rounds,
            evaluation_frequency=10**9,
            train_cohort_size=options.clients,
            val_cohort_size=None,
        ),
        SimulatedBackend(data, data),
        model,
        NNTrainHyperParams(local_num_epochs=0, local_learning_rate=0.1, local_batch_size=None),
        NNEvalHyperParams(local_batch_size=None),
        [clock],
    )
    seconds = np.diff(clock.ends).tolist()
    print(json.dumps({"version": importlib.metadata.version("pfl"), "seconds": seconds}))


if __name__ == "__main__":
    main()

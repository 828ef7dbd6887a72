"""The downstream task: a classifier that a federation trains with FedAvg on surrogates alone.

The methods of this project train imaging networks: their hooks take an image pair and a loss
against the full dose, and a batch has no place for a class. So the rounds are a plain loop here,
with the project's own parts where the numbers come from: flat parameters, the summation tree and
seeds by purpose. FedAvg is McMahan et al. 2017, algorithm 1, weighted by slices.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from physfed_ray.federation.flat import FlatState
from physfed_ray.federation.tree import TreeSum
from physfed_ray.seeds import derive_seed
from physfed_ray.surrogates.batches import batches, in_parts
from physfed_ray.surrogates.file import Training
from physfed_ray.surrogates.networks import Classifier

Examples = tuple[Tensor, Tensor]
"""Images (N, 1, n, n) float32 and their classes (N,) int64."""


def average(vectors: Sequence[Tensor], weights: Sequence[int]) -> Tensor:
    """Return sum_k n_k w_k / sum_k n_k, summed over the fixed tree of the federation.

    Args:
        vectors: Parameters of each client, (size,) float32.
        weights: n_k of each.
    """
    tree = TreeSum()
    for client, (vector, weight) in enumerate(zip(vectors, weights, strict=True)):
        tree.add(client, vector * weight)
    total = tree.total(len(vectors))
    if total is None:
        raise ValueError("nobody took part")
    return total / sum(weights)


def train_federated(
    clients: Sequence[Examples], classes: int, settings: Training, seed: int
) -> Classifier:
    """Return the classifier that clients have trained together.

    Args:
        clients: What each client has; nobody sees another's.
        classes: How many there are.
        settings: Rounds, epochs, batch, learning rate, width.
        seed: Of weights and batches.
    """
    torch.manual_seed(derive_seed(seed, "classifier", "weights"))
    network = Classifier(settings.width, classes)
    state = FlatState(network, ("features", "head"))
    server = state.vector.clone()
    taking_part = [k for k, (_, labels) in enumerate(clients) if len(labels)]
    for round_number in range(1, settings.rounds + 1):
        trained = []
        for k in taking_part:
            state.vector.copy_(server)
            _train(network, state, clients[k], settings, derive_seed(seed, round_number, k))
            trained.append(state.vector.clone())
        server = average(trained, [len(clients[k][1]) for k in taking_part])
    state.vector.copy_(server)
    return network.eval()


def _train(
    network: Classifier, state: FlatState, examples: Examples, settings: Training, seed: int
) -> None:
    """Train the network in place; its parameters are views of the state's vector."""
    images, labels = examples
    optimiser = torch.optim.Adam(state.parameters.values(), settings.lr)
    for chosen in batches(len(labels), settings.batch_size, settings.local_epochs, seed):
        state.zero_gradient()
        functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def balanced_accuracy(network: Classifier, examples: Examples) -> float:
    """Return the mean over the classes of the share that is recognised; 1 / classes by chance.

    Classes without an example are left out.
    """
    images, labels = examples
    found = in_parts(network, images).argmax(dim=1)
    shares = [(found[labels == k] == k).double().mean() for k in sorted(set(labels.tolist()))]
    return float(torch.stack(shares).mean())

"""The federated classifier: the average by hand, and learning that any loop would show."""

import numpy as np
import torch

from physfed_ray.surrogates.diagnosis import average, balanced_accuracy, train_federated
from physfed_ray.surrogates.file import Training
from physfed_ray.surrogates.networks import Classifier


def test_the_average_is_weighted_by_slices() -> None:
    vectors = [torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.0]), torch.tensor([0.0, 8.0])]
    assert average(vectors, [1, 2, 1]).tolist() == [(1 + 8) / 4, (2 + 8) / 4]


def test_one_client_alone_is_its_own_average() -> None:
    assert average([torch.tensor([3.0, -1.0])], [7]).tolist() == [3.0, -1.0]


def bright_or_dark(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = (
        rng.normal(0, 0.3, (count, 1, 32, 32)) + np.where(labels, 0.5, -0.5)[:, None, None, None]
    )
    images[:, :, 16:] -= np.where(labels, 1.0, -1.0)[:, None, None, None]
    return torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels)


def test_clients_learn_together_and_one_without_slices_is_left_out() -> None:
    torch.set_num_threads(1)
    images, labels = bright_or_dark(48, 1)
    clients = [(images[part], labels[part]) for part in (slice(0, 40), slice(40, 48))]
    none = images[:0], labels[:0]
    settings = Training(rounds=6, width=4, lr=3e-3)
    network = train_federated([*clients, none], 2, settings, seed=1)
    assert balanced_accuracy(network, bright_or_dark(64, 2)) > 0.9
    again = train_federated([*clients, none], 2, settings, seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True)
    )


def test_a_class_counts_as_much_as_another() -> None:
    class Always(Classifier):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 0.0]).expand(len(images), 2)

    labels = torch.tensor([0] * 9 + [1])
    assert balanced_accuracy(Always(4, 2), (torch.zeros(10, 1, 32, 32), labels)) == 0.5

"""Frozen networks of an objective: made once, frozen, on the device, in no file and no pickle."""

import copy
import pickle
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.objectives.base import Objective, ObjectiveSettings

MADE: list[str] = []


class Edges(Objective):
    """Compares what a fixed convolution with dropout behind it sees."""

    name = "edges"
    title = "edges"
    paper = "none"

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        """See ``Objective``."""

        def make() -> nn.Module:
            MADE.append(self.name)
            return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(0.5))

        return {"edges": make}

    def __call__(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Objective``."""
        see = self.frozen()["edges"]
        loss = (see(denoised.float()) - see(batch.full)).square().mean()
        return loss, {"edges": loss}


def test_a_frozen_network_is_made_once_and_draws_nothing_of_the_runs_randomness() -> None:
    MADE.clear()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    objective = Edges(ObjectiveSettings())
    assert not objective.frozen()
    objective.prepare("cpu")
    objective.prepare("cpu")
    assert MADE == ["edges"]
    assert torch.equal(before, torch.get_rng_state())
    (network,) = objective.frozen().values()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_it_moves_to_the_device() -> None:
    objective = Edges(ObjectiveSettings())
    objective.prepare("cpu")
    objective.prepare("meta")
    assert {p.device.type for p in objective.frozen()["edges"].parameters()} == {"meta"}


def test_every_process_makes_its_own_and_all_are_equal() -> None:
    objective = Edges(ObjectiveSettings())
    objective.prepare("cpu")
    for other in (pickle.loads(pickle.dumps(objective)), copy.copy(objective)):
        assert not other.frozen()
        other.prepare("cpu")
        pairs = zip(
            objective.frozen()["edges"].parameters(), other.frozen()["edges"].parameters(),
            strict=True,
        )  # fmt: skip
        assert all(a is not b and torch.equal(a, b) for a, b in pairs)


def test_an_objective_without_networks_has_nothing_to_prepare(target: Callable) -> None:
    class Nothing(Edges):
        networks = Objective.networks

    objective = Nothing(ObjectiveSettings())
    objective.prepare("cpu")
    assert not objective.frozen()
    assert objective.smallest_side == 1

"""A method from its card, and weights that fit its network or are refused."""

import pytest
import torch

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.flat import flat_network
from physfed_ray.methods.given import LocalOptimizer
from physfed_ray.rundir.model import LocalTraining, ModelCard, NamedProtocol, Statistics
from physfed_ray.serving.rebuild import fill, rebuild


def card(**changes: object) -> ModelCard:
    """Return the card of two clients."""
    values = {
        "method": {"name": "fedper", "weights": "samples"},
        "backbone": {"name": "red_cnn", "channels": 3},
        "reports": {},
        "statistics": Statistics(0.3, 0.1, [0.5, 0.25], [1.0, 2.0], 4, 2),
        "image_size": 40,
        "window_hu": (-1000.0, 2000.0),
        "clients": tuple(NamedProtocol(id=p, protocol=PRESETS[p]) for p in ("paper-1", "paper-2")),
        "seed": 5,
        "precision": "fp32",
        "training": LocalTraining(optimizer="sgd", momentum=0.9, rounds=7),
    }
    return ModelCard.model_validate(values | changes)


def test_the_method_knows_all_that_the_card_says() -> None:
    method = rebuild(card())
    assert (method.name, method.settings.model_dump()) == ("fedper", {"weights": "samples"})
    task = method.task
    assert (task.image_size, task.clients, task.tokens, task.dim) == (40, 2, 4, 2)
    assert (task.input_mean, task.input_std) == (0.3, 0.1)
    assert (task.embedding_mean, task.embedding_std) == ((0.5, 0.25), (1.0, 2.0))
    assert (task.backbone.name, task.backbone.settings.model_dump()["channels"]) == ("red_cnn", 3)
    assert (task.optimizer, task.rounds) == (LocalOptimizer("sgd", 0.9), 7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": {"name": "fedavgg"}}, "fedavgg"),
        ({"method": {"name": "fedper", "gone": 1}}, "method.gone: unknown key"),
        ({"backbone": {"name": "red_cnn", "gone": 1}}, "gone"),
        ({"method": {"name": "fedbn"}, "backbone": {"name": "uformer"}}, "FedBN keeps batch"),
    ],
)
def test_what_this_version_does_not_have_is_said(changes: dict[str, object], said: str) -> None:
    with pytest.raises(PhysFedError, match=said):
        rebuild(card(**changes))


def test_weights_fill_the_network_that_they_are_of() -> None:
    method = rebuild(card())
    network, (shared, _) = flat_network(method, 1, "cpu")
    _, (other, _) = flat_network(method, 2, "cpu")
    moments = {"optimizer.encoder.step": torch.tensor(3.0)}
    fill(shared, other.named() | moments, "here")
    assert torch.equal(shared.vector, other.vector)
    name = shared.entries[0].name
    assert torch.equal(network.get_parameter(name), other.named()[name])


def test_weights_of_another_network_are_refused() -> None:
    method = rebuild(card())
    _, (shared, _) = flat_network(method, 1, "cpu")
    name = shared.entries[0].name
    before, tensors = shared.vector.clone(), shared.named()
    wrong = tensors | {name: tensors[name].transpose(0, 1)}  # as many numbers, another shape
    for given in (wrong, {n: t for n, t in tensors.items() if n != name}):
        with pytest.raises(PhysFedError, match=rf"here does not fit .* \(at {name}"):
            fill(shared, given, "here")
    assert torch.equal(shared.vector, before)

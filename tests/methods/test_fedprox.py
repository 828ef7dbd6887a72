"""FedProx: a round by hand in float64, the proximal term, what crosses."""

from functools import partial

import pytest
import torch

from tests.methods.by_hand import (
    Federation,
    assert_equal,
    distance,
    every_optimizer,
    squared_error,
)

CLIENTS = (0, 1, 2)


@pytest.fixture
def federation(make_spec):
    """Return a maker of federations."""
    return partial(Federation, make_spec, "fedprox")


@every_optimizer
@pytest.mark.parametrize("weights", ["uniform", "samples"])
def test_a_round_holds_the_clients_near_what_was_broadcast(federation, optimizer, weights):
    fed = federation({"mu": 2.0, "weights": weights}, **optimizer)
    start = fed.numbers

    def mean(mu):
        def loss(w, x, full):
            return squared_error(w, x, full) + mu / 2 * ((w - start) ** 2).sum()

        local = [fed.train_by_hand(start, c, loss)[0] for c in CLIENTS]
        return sum(p * w for p, w in zip(fed.shares(CLIENTS, weights), local, strict=True))

    fed.play()
    assert_equal(fed.numbers, mean(2.0))
    assert distance(mean(0.0), mean(2.0)) > 1e-3


def test_the_second_round_is_held_near_the_second_broadcast(federation):
    fed = federation({"mu": 2.0}, optimizer="sgd", lr=0.05)
    start = fed.numbers
    expected = start
    for number in (1, 2):

        def loss(w, x, full, centre=expected):
            return squared_error(w, x, full) + ((w - centre) ** 2).sum()

        local = [fed.train_by_hand(expected, c, loss, number)[0] for c in CLIENTS]
        expected = sum(local) / 3
        fed.play(number)
    assert_equal(fed.numbers, expected)
    assert distance(start, expected) > 1e-2


def test_without_mu_it_is_fedavg_bit_for_bit(federation, make_spec):
    fed, plain = federation({"mu": 0.0}), Federation(make_spec, "fedavg")
    fed.play()
    plain.play()
    assert torch.equal(fed.numbers, plain.numbers)


def test_the_term_is_of_the_shared_parameters(make_method, make_batch, begin, shake):
    method = make_method("fedprox", mu=3.0)
    network = method.build(1)
    state = begin(method, network)
    before = {name: p.detach().double().clone() for name, p in network.named_parameters()}
    shake(network)
    loss, parts = method.loss(network, make_batch(), state)
    moved = sum((p.double() - before[n]).square().sum() for n, p in network.named_parameters())
    torch.testing.assert_close(parts["proximal"].double(), moved.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(loss, parts["mse"] + 1.5 * parts["proximal"])


def test_all_that_denoises_crosses_and_nothing_beside_it(federation):
    results = federation().play()
    assert [r.uploads for r in results] == [{}, {}, {}]
    assert not any(r.kept for r in results)

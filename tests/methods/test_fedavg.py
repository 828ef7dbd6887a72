"""FedAvg: a round equals one computed by hand in float64."""

from functools import partial

import pytest

from tests.methods.by_hand import (
    Federation,
    assert_equal,
    distance,
    every_optimizer,
    squared_error,
)


@pytest.fixture
def federation(make_spec):
    """Return a maker of federations."""
    return partial(Federation, make_spec, "fedavg")


@every_optimizer
@pytest.mark.parametrize("weights", ["uniform", "samples"])
@pytest.mark.parametrize("clients", [(0, 1, 2), (1, 2)])
def test_a_round_is_the_weighted_mean_of_what_the_clients_trained(
    federation, optimizer, weights, clients
):
    fed = federation({"weights": weights}, **optimizer)
    start = fed.numbers
    local = [fed.train_by_hand(start, c, squared_error) for c in clients]
    shares = fed.shares(clients, weights)
    expected = sum(p * w for p, (w, _) in zip(shares, local, strict=True))
    results = fed.play(clients=clients)
    assert [r.steps for r in results] == [k for _, k in local]
    assert_equal(fed.numbers, expected)
    assert distance(start, expected) > 1e-2
    other = fed.shares(clients, "samples" if weights == "uniform" else "uniform")
    assert distance(expected, sum(p * w for p, (w, _) in zip(other, local, strict=True))) > 1e-4


def test_all_that_denoises_crosses_and_nothing_beside_it(federation):
    results = federation().play()
    assert [r.uploads for r in results] == [{}, {}, {}]
    assert not any(r.kept for r in results)

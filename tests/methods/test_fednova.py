"""FedNova: rounds by hand in float64 with unequal steps, the norms, what crosses."""

from functools import partial

import numpy as np
import pytest

from physfed_ray.methods.fednova import accumulation_norm
from physfed_ray.methods.given import LocalOptimizer
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
    return partial(Federation, make_spec, "fednova")


def norm_by_hand(training, steps):
    """Return ||a||_1: how often the gradients of all steps enter the sum of all updates."""
    a = np.zeros(steps)
    for k in range(1, steps + 1):
        for s in range(1, k + 1):
            if training.optimizer == "sgd":
                a[s - 1] += training.momentum ** (k - s)
            else:
                a[s - 1] += 0.1 * 0.9 ** (k - s) / (1 - 0.9**k)
    return a.sum()


def step_by_hand(fed, start, clients, weights):
    """Return what a round adds, tau_eff sum_i p_i (x_i - x) / ||a_i||_1, and the steps made."""
    local = [fed.train_by_hand(start, c, squared_error) for c in clients]
    shares = fed.shares(clients, weights)
    norms = [norm_by_hand(fed.spec.training, steps) for _, steps in local]
    tau_eff = sum(p * norm for p, norm in zip(shares, norms, strict=True))
    directions = [(x - start) / norm for (x, _), norm in zip(local, norms, strict=True)]
    moved = sum(p * d for p, d in zip(shares, directions, strict=True))
    plain = sum(p * (x - start) for p, (x, _) in zip(shares, local, strict=True))
    return tau_eff * moved, plain, [steps for _, steps in local]


@every_optimizer
@pytest.mark.parametrize("weights", ["uniform", "samples"])
@pytest.mark.parametrize("clients", [(0, 1, 2), (1, 2)])
def test_a_round_with_unequal_steps(federation, optimizer, weights, clients):
    fed = federation({"weights": weights}, **optimizer)
    start = fed.numbers
    moved, plain, steps = step_by_hand(fed, start, clients, weights)
    results = fed.play(clients=clients)
    assert [r.steps for r in results] == steps
    assert set(steps) == {3, 6}
    assert_equal(fed.numbers, start + moved)
    assert distance(moved, plain) > 1e-4


@every_optimizer
def test_with_equal_steps_it_is_fedavg(federation, make_spec, optimizer):
    fed = federation(batch_size=4, **optimizer)
    plain = Federation(make_spec, "fedavg", batch_size=4, **optimizer)
    start = fed.numbers
    fed.play()
    plain.play()
    assert_equal(fed.numbers, plain.numbers)
    assert distance(start, fed.numbers) > 1e-2


@every_optimizer
def test_late_updates_are_added_to_what_the_server_has_by_then(federation, optimizer):
    fed = federation(**optimizer)
    base = fed.numbers
    fed.play(1)
    now = fed.numbers
    moved, _, _ = step_by_hand(fed, base, (0, 1), "uniform")
    fed.play(1, (0, 1), base=base)
    assert_equal(fed.numbers, now + moved)


@pytest.mark.parametrize("steps", [1, 2, 7, 400])
def test_norms_of_the_optimizers(make_spec, steps):
    for name, momentum in (("adam", 0.0), ("sgd", 0.0), ("sgd", 0.5), ("sgd", 0.99)):
        training = make_spec("fednova", optimizer=name, momentum=momentum).training
        norm = accumulation_norm(LocalOptimizer(name, momentum), steps)
        assert norm == pytest.approx(norm_by_hand(training, steps), rel=1e-9)
        assert momentum or norm == steps


def test_all_that_denoises_crosses_and_one_number_beside_it(federation):
    fed = federation({"weights": "samples"}, optimizer="sgd", lr=0.05)
    results = fed.play()
    sent = [{name: float(a) for name, a in r.uploads.items()} for r in results]
    assert sent == [{"norm": steps} for steps in (3, 6, 3)]
    assert not any(r.kept for r in results)

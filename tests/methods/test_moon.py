"""MOON: two rounds by hand in float64, the previous encoder, what crosses."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch

from physfed_ray.experiment import Federation as Settings
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.flat import FlatState, private_parts
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.server import ParameterServer
from physfed_ray.rundir.run_directory import RunDirectory, client_file
from physfed_ray.runtime.inline import InlineRuntime
from tests.methods.by_hand import (
    Federation,
    assert_equal,
    distance,
    encode,
    every_optimizer,
    squared_error,
)

CLIENTS = (0, 1, 2)
MU, TEMPERATURE = 2.0, 0.25
SETTINGS = {"mu": MU, "temperature": TEMPERATURE}


@pytest.fixture
def federation(make_spec):
    """Return a maker of federations."""
    return partial(Federation, make_spec, "moon")


def cosine(a, b):
    return (a * b).sum(1) / ((a**2).sum(1).sqrt() * (b**2).sum(1).sqrt())


def contrastive(w, x, everyone, previous):
    """Return eq. 3 of the paper on the images' mean features."""
    z, z_glob, z_prev = (encode(v, x).mean((2, 3)) for v in (w, everyone, previous))
    near, far = ((cosine(z, other) / TEMPERATURE).exp() for other in (z_glob, z_prev))
    return -(near / (near + far)).log().mean()


def round_by_hand(fed, start, previous, number, mu=MU):
    """Return what each client ends with."""

    def train(client):
        def loss(w, x, full):
            return squared_error(w, x, full) + mu * contrastive(w, x, start, previous[client])

        return fed.train_by_hand(start, client, loss, number)[0]

    return {client: train(client) for client in CLIENTS}


@every_optimizer
def test_two_rounds(federation, optimizer):
    fed = federation(SETTINGS, **optimizer)
    start = fed.numbers
    first = round_by_hand(fed, start, dict.fromkeys(CLIENTS, start), 1)
    fed.play(1)
    middle = sum(first.values()) / 3
    assert_equal(fed.numbers, middle)
    second = round_by_hand(fed, middle, first, 2)
    fed.play(2, trained=dict.fromkeys(CLIENTS, 1))
    expected = sum(second.values()) / 3
    assert_equal(fed.numbers, expected)
    without = sum(round_by_hand(fed, middle, first, 2, mu=0).values()) / 3
    assert distance(expected, without) > 2e-5


def test_the_first_round_has_no_contrast(federation, make_spec):
    fed = federation(SETTINGS | {"mu": 10.0})
    plain = Federation(make_spec, "fedavg")
    results = fed.play()
    plain.play()
    assert torch.equal(fed.numbers, plain.numbers)
    assert all(r.losses["contrastive"] == pytest.approx(np.log(2)) for r in results)


def test_a_client_that_is_drawn_late_has_the_initial_network_for_its_previous_one(federation):
    fed = federation(SETTINGS, optimizer="sgd", lr=0.05)
    start = fed.numbers
    fed.play(1, (0, 1))
    middle = fed.numbers
    expected = round_by_hand(fed, middle, {0: start, 1: start, 2: start}, 2)[2]
    fed.play(2, (2,), trained={0: 1, 1: 1})
    assert_equal(fed.numbers, expected)
    no_contrast = round_by_hand(fed, middle, dict.fromkeys(CLIENTS, middle), 2)[2]
    assert distance(expected, no_contrast) > 1e-4


def test_a_client_that_sat_out_a_round_keeps_its_previous_network(federation):
    fed = federation(SETTINGS, optimizer="sgd", lr=0.05)
    start = fed.numbers
    own = round_by_hand(fed, start, dict.fromkeys(CLIENTS, start), 1)
    fed.play(1)
    fed.play(2, (0, 1), trained=dict.fromkeys(CLIENTS, 1))
    middle = fed.numbers
    expected = round_by_hand(fed, middle, own, 3)[2]
    fed.play(3, (2,), trained={0: 2, 1: 2, 2: 1})
    assert_equal(fed.numbers, expected)


def test_the_previous_encoder_is_the_private_state_without_moments(make_method):
    method = make_method("moon")
    network = method.build(1)
    assert private_parts(network, method.shared) == ["previous_encoder"]
    private = FlatState(network, ["previous_encoder"])
    assert private.parameters == {}
    shared = dict(network.encoder.state_dict())
    assert all(
        torch.equal(value, shared[name.removeprefix("previous_encoder.")])
        for name, value in private.named().items()
    )
    assert len(private.named()) == len(shared)


def test_fixed_encoders_take_no_gradient_and_do_not_follow(make_method, make_batch, begin, shake):
    method, batch = make_method("moon"), make_batch()
    network = shake(method.build(1))
    everyone = begin(method, network)
    before = [p.clone() for m in (everyone, network.previous_encoder) for p in m.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    loss, _ = method.loss(network, batch, everyone)
    loss.backward()
    optimizer.step()
    after = [p for m in (everyone, network.previous_encoder) for p in m.parameters()]
    assert all(p.grad is None and torch.equal(p, q) for p, q in zip(after, before, strict=True))
    assert not torch.equal(network.encoder.layers[0].weight, before[0])
    assert not everyone.training
    assert not network.previous_encoder.training


def order(number, private_round):
    return Order(number, 1e-3, CLIENTS, tuple(ClientTurn(c, private_round) for c in CLIENTS), (0,))


def test_the_encoder_that_is_kept_is_the_one_that_was_sent(make_spec, tmp_path):
    spec = make_spec("moon", run_root=tmp_path / "run")
    server, host = ParameterServer(spec), Host(spec)
    vector, extras = server.broadcast()
    results, pieces = host.train(
        Order(1, 1e-3, CLIENTS, (ClientTurn(1, 0),), (0,)), vector.copy(), extras
    )
    assert results[0].uploads == {}
    assert results[0].kept
    (sent,) = (piece for piece in pieces.values() if piece is not None)
    layout = FlatState(spec.method.build(spec.seed), spec.method.shared)
    assert {name.partition(".")[0] for name in layout.named()} == {"encoder", "decoder"}
    assert sent.size == layout.vector.numel()
    named = layout.named(torch.from_numpy(sent))
    kept = RunDirectory(spec.run_root).read_tensors(client_file(1, "c2"))
    encoder = {n for n in named if n.startswith("encoder.")}
    assert kept.keys() == {f"previous_{name}" for name in encoder}
    assert all(torch.equal(kept[f"previous_{name}"], named[name]) for name in encoder)


def test_the_previous_encoder_never_leaves(make_spec, tmp_path):
    spec = make_spec("moon", run_root=tmp_path / "run")
    marker = np.float32(12345.678)
    directory = RunDirectory(spec.run_root)
    private = FlatState(spec.method.build(spec.seed), ["previous_encoder"])
    state = {name: torch.full(v.shape, float(marker)) for name, v in private.named().items()}
    for client in spec.clients:
        directory.write_tensors(client_file(1, client.id), state)
    server = ParameterServer(spec)
    vector, extras = server.broadcast()
    answer = Host(spec).train(order(2, 1), vector.copy(), extras)
    assert all(result.losses["contrastive"] != pytest.approx(np.log(2)) for result in answer[0])
    assert marker.tobytes() not in pickle.dumps(answer)
    assert marker.tobytes() in pickle.dumps(state)
    assert not server.serves_locally()


def test_a_resumed_run_has_the_bits_of_an_undisturbed_one_on_any_hosts(make_spec, tmp_path):
    def go(folder, hosts, until):
        spec = make_spec("moon", clients=5, unseen=0, run_root=tmp_path / folder, lr=1e-2)
        runtime = InlineRuntime(spec, hosts)
        rounds = Rounds(
            spec, Settings(), runtime, RunDirectory(spec.run_root), lambda e: None, lambda r: None
        )
        rounds.resume()
        for number in range(rounds.manifest.round + 1, until + 1):
            rounds.run_round(number)
        vector = runtime.server("broadcast")[0].copy()
        runtime.close()
        return vector

    undisturbed = go("calm", 1, 3)
    assert not np.array_equal(go("stopped", 2, 2), undisturbed)
    assert np.array_equal(go("stopped", 4, 3), undisturbed)

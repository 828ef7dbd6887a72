"""FedMRI: shared and private parts, l_con by hand, where it is zero, and what it costs."""

import copy

import numpy as np
import pytest
import torch

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.flat import FlatState, private_parts
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.methods.given import ClientInfo, RoundInput

CLIENTS = (0, 1, 2)


def numbers(module):
    """Return all parameters of a module in one float64 array."""
    return np.concatenate([p.detach().numpy().ravel() for p in module.parameters()]).astype(float)


def begin(method, network, encoders=None):
    extras = {} if encoders is None else {"encoders": np.stack(encoders).astype(np.float32)}
    client = ClientInfo(1, "c2", PRESETS["paper-1"], 4)
    return method.begin(network, RoundInput(2, client, np.zeros(0, np.float32), extras))


@pytest.fixture
def drifted(make_method, shake):
    """Return a method, its network off the average, theta, theta_g and three theta_j."""
    method = make_method("fedmri", mu=0.7)
    network = method.build(1)
    average = numbers(network.encoder)
    rng = np.random.default_rng(3)
    previous = [(average + rng.normal(0, 0.1, average.shape)).astype(np.float32) for _ in CLIENTS]
    state = begin(method, network, previous)
    shake(network)
    return method, network, state, (numbers(network.encoder), average, previous)


def test_the_decoder_is_private(make_method):
    method = make_method("fedmri")
    assert method.shared == ("encoder",)
    assert private_parts(method.build(1), method.shared) == ["decoder"]


def test_loss_by_hand(drifted, make_batch):
    method, network, state, (theta, average, previous) = drifted
    batch = make_batch()
    near = np.abs(theta - average).sum()
    far = sum(np.abs(theta - other).sum() for other in previous)
    denoised = network.decoder(*network.encoder(batch.low))
    mse = float((denoised - batch.full).square().mean())
    loss, named = method.loss(network, batch, state)
    assert float(named["contrastive"]) == pytest.approx(near / far, rel=1e-5)
    assert float(named["mse"]) == pytest.approx(mse, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(mse + 0.7 * near / far, rel=1e-5)


def test_gradient_by_hand(drifted, make_batch):
    method, network, state, (theta, average, previous) = drifted
    batch = make_batch()
    near = np.abs(theta - average).sum()
    far = sum(np.abs(theta - other).sum() for other in previous)
    pushed = sum(np.sign(theta - other) for other in previous)
    expected = 0.7 * (np.sign(theta - average) / far - near * pushed / far**2)
    found = []
    for kept in (state, None):
        network.zero_grad()
        method.loss(network, batch, kept)[0].backward()
        found.append(np.concatenate([p.grad.numpy().ravel() for p in network.encoder.parameters()]))
    scale = np.abs(expected).max()
    np.testing.assert_allclose((found[0] - found[1]) / scale, expected / scale, atol=1e-2)
    decoder = [p.grad.clone() for p in network.decoder.parameters()]
    network.zero_grad()
    method.loss(network, batch, state)[0].backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(network.decoder.parameters(), decoder,
                                                      strict=True))  # fmt: skip


def test_no_regularisation_in_the_first_round(make_method, make_batch, shake):
    method, batch = make_method("fedmri", mu=5.0), make_batch()
    network = shake(method.build(1))
    state = begin(method, network)
    loss, named = method.loss(network, batch, state)
    assert state is None
    assert torch.equal(loss.detach(), named["mse"])
    assert float(named["contrastive"]) == 0.0


def test_no_regularisation_where_a_round_begins(make_method, make_batch, shake):
    method, batch = make_method("fedmri", mu=5.0), make_batch()
    network = shake(method.build(1))
    theta = numbers(network.encoder)
    state = begin(method, network, [theta + 0.1, theta - 0.2])
    loss, named = method.loss(network, batch, state)
    loss.backward()
    assert float(named["contrastive"]) == 0.0
    plain = copy.deepcopy(network)
    plain.zero_grad()
    method.loss(plain, batch, None)[0].backward()
    pairs = zip(network.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(p.grad, q.grad) for p, q in pairs)


def test_a_lone_client_is_not_pulled(make_method, make_batch, shake):
    method, batch = make_method("fedmri", mu=5.0), make_batch()
    network = method.build(1)
    state = begin(method, network, [numbers(network.encoder)])  # its last encoder is the average
    loss, _ = method.loss(network, batch, state)
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())
    shake(network)
    assert float(method.loss(network, batch, state)[1]["contrastive"]) == pytest.approx(1.0)


def test_clients_get_the_encoders_of_the_last_round(make_spec, monkeypatch):
    spec = make_spec("fedmri")
    server, host = ParameterServer(spec), Host(spec)
    encoders, given = {}, {}
    watched = type(spec.method)
    begin_, finish_ = watched.begin, watched.finish

    def look_first(self, network, round_input):
        state = begin_(self, network, round_input)
        given[round_input.round, round_input.client.id] = state, numbers(network.encoder)
        return state

    def look_last(self, network, round_input, *rest):
        encoders[round_input.round, round_input.client.id] = numbers(network.encoder)
        return finish_(self, network, round_input, *rest)

    monkeypatch.setattr(watched, "begin", look_first)
    monkeypatch.setattr(watched, "finish", look_last)
    for number, clients in ((1, CLIENTS), (2, (0, 2)), (3, CLIENTS)):
        vector, extras = server.broadcast()
        jobs = tuple(ClientTurn(c, 0) for c in clients)
        results, pieces = host.train(
            Order(number, 1e-3, CLIENTS, jobs, (0,)), vector.copy(), extras
        )
        uploads = {result.client: result.uploads for result in results}
        sent, received = server.aggregate(number, clients, uploads, [], False, pieces)
        bytes_of_encoder = 4 * len(encoders[1, "c1"])
        assert sent == bytes_of_encoder
        assert received == (1 + len(clients)) * bytes_of_encoder
        assert all(spec.method.bytes_up(sent, u) == bytes_of_encoder for u in uploads.values())
    assert given[1, "c1"][0] is None
    for number, before in ((2, ("c1", "c2", "c3")), (3, ("c1", "c3"))):
        state, average = given[number, "c1"]
        expected = [encoders[number - 1, client] for client in before]
        assert np.array_equal(state.previous.numpy(), np.stack(expected))
        assert np.array_equal(state.average.numpy(), average)
        np.testing.assert_allclose(average, np.mean(expected, axis=0), atol=1e-6)


def test_nothing_but_the_encoder_leaves(make_spec):
    spec = make_spec("fedmri")
    host = Host(spec)
    vector, extras = ParameterServer(spec).broadcast()
    order = Order(1, 1e-3, (0,), (ClientTurn(0, 0),), (0,))
    (result,), pieces = host.train(order, vector, extras)
    (piece,) = pieces.values()
    assert result.uploads.keys() == {"encoder"}
    assert np.array_equal(result.uploads["encoder"], piece)
    layout = FlatState(spec.method.build(spec.seed), spec.method.shared)
    assert {name.partition(".")[0] for name in layout.named()} == {"encoder"}
    assert piece.size == layout.vector.numel()

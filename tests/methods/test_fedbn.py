"""FedBN: what is private, that it persists and never leaves, and who is refused."""

import pickle

import numpy as np
import pytest
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.flat import FlatState, private_parts
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.methods.fedbn import FedBN
from physfed_ray.rundir.run_directory import RunDirectory, client_file, round_name

CLIENTS = (0, 1, 2)
STATISTICS = {"weight", "bias", "running_mean", "running_var"}


def order(number, clients=CLIENTS):
    return Order(number, 1e-3, clients, tuple(ClientTurn(c, number - 1) for c in clients), (0,))


def play(spec, rounds):
    """Return the server, the host, and by round what each client reported and what it sent."""
    server, host, sent = ParameterServer(spec), Host(spec), []
    for number in range(1, rounds + 1):
        vector, extras = server.broadcast()
        results, pieces = host.train(order(number), vector.copy(), extras)
        sent.append((results, {node: np.array(piece) for node, piece in pieces.items()}))
        server.aggregate(number, CLIENTS, {r.client: r.uploads for r in results}, [], False, pieces)
        server.save(number)
    return server, host, sent


def kept(spec, number, client):
    return RunDirectory(spec.run_root).read_tensors(client_file(number, client))


def test_layers_are_shared_and_normalisations_private(make_method):
    method = make_method("fedbn")
    network = method.build(1)
    assert private_parts(network, method.shared) == ["encoder.norms", "decoder.norms"]
    shared = FlatState(network, method.shared).named()
    weights = [f"{half}.layers.{i}.weight" for half in ("encoder", "decoder") for i in range(5)]
    assert shared.keys() == {*weights, "decoder.layers.4.bias"}
    private = FlatState(network, private_parts(network, method.shared)).named()
    norms = [f"encoder.norms.{i}" for i in range(5)] + [f"decoder.norms.{i}" for i in range(4)]
    assert private.keys() == {f"{norm}.{name}" for norm in norms for name in STATISTICS}


def test_normalisations_persist_from_round_to_round(make_spec, tmp_path, monkeypatch):
    seen = {}

    def watched(when):
        original = getattr(FedBN, when)

        def look(self, network, round_input, *rest):
            norms = {n: v.clone() for n, v in network.state_dict().items() if ".norms." in n}
            layer = network.encoder.layers[2].weight.detach().clone()
            seen[round_input.round, round_input.client.id, when] = norms, layer
            return original(self, network, round_input, *rest)

        monkeypatch.setattr(FedBN, when, look)

    watched("begin")
    watched("finish")
    spec = make_spec("fedbn", run_root=tmp_path / "run")
    play(spec, 2)
    means = []
    for client in ("c1", "c2", "c3"):
        first, ended = seen[1, client, "begin"][0], seen[1, client, "finish"][0]
        again, layer = seen[2, client, "begin"]
        state = kept(spec, 1, client)
        for name in ended:
            if name.endswith("num_batches_tracked"):
                continue
            assert torch.equal(again[name], ended[name])
            assert torch.equal(state[name], ended[name])
            assert not torch.equal(first[name], ended[name])
        assert torch.equal(layer, seen[2, "c1", "begin"][1])
        means.append(again["encoder.norms.0.running_mean"])
    assert not torch.equal(means[0], means[1])
    assert not torch.equal(means[1], means[2])


def test_statistics_are_those_of_the_clients_batches(make_spec, monkeypatch):
    inputs = []
    original = FedBN.loss

    def watched(self, network, batch, state):
        with torch.no_grad():
            layer = network.encoder.layers[0]
            standardised = (batch.low - 0.5) / 0.2
            inputs.append(torch.nn.functional.conv2d(standardised, layer.weight))
        return original(self, network, batch, state)

    monkeypatch.setattr(FedBN, "loss", watched)
    spec = make_spec("fedbn")
    host = Host(spec)
    vector, extras = ParameterServer(spec).broadcast()
    host.train(order(1, (1,)), vector, extras)
    mean, variance = torch.zeros(2), torch.ones(2)
    for out in inputs:
        mean = 0.9 * mean + 0.1 * out.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * out.transpose(0, 1).flatten(1).var(1)
    norm = host.network.module.encoder.norms[0]  # as the last client left it
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


def test_nothing_of_the_normalisations_leaves(make_spec, tmp_path):
    spec = make_spec("fedbn", run_root=tmp_path / "run")
    server, host, sent = play(spec, 2)
    secrets = [
        value.numpy().tobytes()
        for number in (1, 2)
        for client in ("c1", "c2", "c3")
        for value in kept(spec, number, client).values()
        if value.numel() > 1
    ]
    assert len(secrets) >= 2 * 3 * 9 * 4
    answers = [
        host.seen.evaluate(server.broadcast()[0], ClientTurn(0, 2), "test"),
        server.broadcast(),
        RunDirectory(spec.run_root).read_tensors(f"{round_name(2)}/server.safetensors"),
    ]
    for leaving in (*sent, *answers):
        payload = pickle.dumps(leaving)
        assert not any(secret in payload for secret in secrets)
    assert server.broadcast()[1] == {}


def test_a_client_is_evaluated_with_its_own_statistics(make_spec, tmp_path):
    spec = make_spec("fedbn", run_root=tmp_path / "run", rounds=2, lr=1e-2)
    server, host, _ = play(spec, 2)
    vector = server.broadcast()[0]
    own, fresh, again = (
        host.seen.evaluate(vector, ClientTurn(0, number), "test").scores for number in (2, 0, 2)
    )
    assert all(np.array_equal(own[name], again[name]) for name in own)
    assert any(not np.array_equal(own[name], fresh[name]) for name in own)


def test_a_backbone_without_normalisations_is_refused(make_method):
    with pytest.raises(PhysFedError, match=r"FedBN .* backbone 'uformer' has none: choose"):
        make_method("fedbn", backbone="uformer")


def test_an_experiment_with_such_a_backbone_is_refused():
    content = {
        "name": "small",
        "data": {"source": {"phantom": {"patients": 4, "slices": 2}}},
        "clients": "paper-[12]",
        "method": {"name": "fedbn"},
    }
    assert Experiment.model_validate(content).method.name == "fedbn"
    with pytest.raises(ValueError, match="backbone 'uformer' has none"):
        Experiment.model_validate(content | {"backbone": {"name": "uformer"}})

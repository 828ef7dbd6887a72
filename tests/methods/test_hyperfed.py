"""HyperFed: the modulation by hand, on both backbones, what is private, and how it is served."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from physfed_ray.data.dataset import whole_batches
from physfed_ray.data.store import read_client_data
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.flat import FlatState, private_parts
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.methods.given import Task
from physfed_ray.methods.hyperfed import HyperFed, HyperFedSettings
from physfed_ray.models.registry import make_backbone, parameter_counts

HYPERNETWORK = "protocol_hypernetwork"


def by_hand(hypernetwork: nn.Module, g: torch.Tensor) -> torch.Tensor:
    """Return the three layers' output, without dropout."""
    out = (g - 0.5) / 0.25
    first, second, third = hypernetwork.hidden, hypernetwork.to_code, hypernetwork.to_modulation
    out = (first.weight @ out + first.bias).relu()
    out = (second.weight @ out + second.bias).relu()
    return third.weight @ out + third.bias


def red_cnn(network: nn.Module, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """RED-CNN with one alpha and beta for the encoder, one for the decoder, one for the last."""
    (a0, a1, a2), (b0, b1, b2) = (
        [v[:, None, None] for v in part.split([4, 4, 1])] for part in out.chunk(2)
    )
    f, skips = (x - 0.3) / 0.2, []
    for i, layer in enumerate(network.encoder.layers):
        f = (a0 * functional.conv2d(f, layer.weight, layer.bias) + b0).relu()
        if i in (1, 3):
            skips.append(f)
    for i, layer in enumerate(network.decoder.layers):
        f = functional.conv_transpose2d(f, layer.weight, layer.bias)
        if i == 4:
            return a2 * f + b2 + x
        f = a1 * f + b1
        f = (f + skips.pop() if i in (0, 2) else f).relu()
    raise AssertionError


def test_hypernetwork_is_private(make_method):
    method = make_method("hyperfed")
    network = method.build(1)
    assert set(method.shared) == {"encoder", "decoder"}
    assert private_parts(network, method.shared) == [HYPERNETWORK]
    assert method.learning_rate_scale == {HYPERNETWORK: 0.1}


def test_red_cnn_by_hand(make_method, make_batch, shake):
    method, batch = make_method("hyperfed"), make_batch()
    network = shake(method.build(1)).eval()
    out = by_hand(network.protocol_hypernetwork, batch.g[0])
    expected = red_cnn(network, batch.low, out)
    found = method.denoise(network, batch)
    scale = float(expected.abs().max())
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=1e-5)
    mse = (expected - batch.full).square().mean()
    torch.testing.assert_close(method.loss(network, batch, None)[1]["mse"], mse, rtol=1e-4, atol=0)


def test_uformer_with_the_outputs_of_its_convolutions_modulated(make_method, make_batch, shake):
    method, batch = make_method("hyperfed", backbone="uformer"), make_batch()
    network = shake(method.build(1)).eval()
    alpha, beta = by_hand(network.protocol_hypernetwork, batch.g[0]).chunk(2)
    place = 0
    hooks = []
    for half in (network.encoder, network.decoder):
        layers = [m for m in half.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        for width in dict.fromkeys(layer.out_channels for layer in layers):
            scale, shift = (v[place : place + width, None, None] for v in (alpha, beta))
            place += width
            hooks += [
                layer.register_forward_hook(lambda _, __, out, a=scale, b=shift: a * out + b)
                for layer in layers
                if layer.out_channels == width
            ]
    assert place == len(alpha)
    expected = network.decoder(*network.encoder(batch.low))
    for hook in hooks:
        hook.remove()
    found = method.denoise(network, batch)
    scale = float(expected.abs().max())
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["red_cnn", "uformer"])
def test_modulation_starts_at_the_identity(backbone, make_method, make_batch, shake):
    ours, plain = (make_method(name, backbone=backbone) for name in ("hyperfed", "fedavg"))
    batch, network, other = make_batch(), ours.build(1), plain.build(1)
    hypernetwork = network.protocol_hypernetwork
    alpha, beta = hypernetwork(batch.own_g)
    assert torch.equal(alpha, torch.ones_like(alpha))
    assert torch.equal(beta, torch.zeros_like(beta))
    shake(other)
    for half in ("encoder", "decoder"):
        state = other.get_submodule(half).state_dict()
        network.get_submodule(half).load_state_dict(state)
    found, expected = ours.denoise(network, batch), plain.denoise(other, batch)
    assert not torch.equal(expected, batch.low)
    torch.testing.assert_close(found, expected)
    still = ours.inspect(network, batch)
    assert still == {"alpha_mean": 1.0, "alpha_std": 0.0, "beta_mean": 0.0, "beta_std": 0.0}
    assert ours.inspect(shake(network), batch)["alpha_std"] > 0


def test_another_protocol_changes_the_image(make_method, make_batch, shake):
    method, batch = make_method("hyperfed"), make_batch()
    network = shake(method.build(1)).eval()
    other = replace(batch, g=torch.rand(7).expand(2, -1))
    assert not torch.allclose(method.denoise(network, batch), method.denoise(network, other))


def test_training_drops_and_evaluation_does_not(make_method, make_batch, shake):
    method, batch = make_method("hyperfed"), make_batch()
    network = shake(method.build(1))
    assert network.protocol_hypernetwork.dropout.p == 0.5
    torch.manual_seed(4)
    first = method.loss(network, batch, None)[0]
    assert not torch.equal(first, method.loss(network, batch, None)[0])
    torch.manual_seed(4)
    assert torch.equal(first, method.loss(network, batch, None)[0])
    network.eval()
    assert torch.equal(method.denoise(network, batch), method.denoise(network, batch))


def test_size_of_the_hypernetwork_with_red_cnn_of_96_channels():
    task = Task(256, 8, 0.0, 1.0, 1, 4, (0.0,) * 4, (1.0,) * 4, make_backbone(channels=96))
    method = HyperFed(HyperFedSettings(), task)
    hypernetwork = method.children()[HYPERNETWORK]()
    found = parameter_counts(nn.ModuleDict({HYPERNETWORK: hypernetwork}))
    assert found == {HYPERNETWORK: 7 * 256 + 256 + 256 * 512 + 512 + 512 * 386 + 386}


def test_hypernetworks_stay_and_serve_unseen_protocols_with_their_own(make_spec):
    spec = make_spec("hyperfed", lr=1e-2, settings={"hyper_lr_scale": 1.0})
    server, host, clients = ParameterServer(spec), Host(spec), (0, 1, 2)
    vector, extras = server.broadcast()
    order = Order(1, 1e-2, clients, tuple(ClientTurn(c, 0) for c in clients), (0,))
    results, pieces = host.train(order, vector.copy(), extras)
    layout = FlatState(spec.method.build(spec.seed), spec.method.shared)
    assert {name.partition(".")[0] for name in layout.named()} == {"encoder", "decoder"}
    assert all(piece.size == layout.vector.numel() for piece in pieces.values())
    assert all(result.uploads == {} for result in results)
    server.aggregate(1, clients, {r.client: r.uploads for r in results}, [], False, pieces)
    vector = server.broadcast()[0]
    images = []
    for client in clients:
        _, served = host.unseen.serve(vector, [ClientTurn(client, 1)], 0)
        (denoised,) = served.values()
        # As the host left it: the network of this client.
        network = host.network.module
        ((_, batch),) = whole_batches(read_client_data(spec.unseen[0].test), 8)
        g = torch.tensor([spec.clients[client].g]).expand(len(batch.low), -1)
        with torch.inference_mode():
            expected = spec.method.denoise(network, replace(batch, g=g)).squeeze(1).clamp(0, 1)
        np.testing.assert_allclose(denoised, expected, atol=1e-6)
        images.append(np.array(denoised))
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])

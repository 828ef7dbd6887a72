"""FedFDD: both networks by hand, the bands, what is private, any size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.fft import dctn, idctn
from torch.nn import functional

from physfed_ray.federation.client.host import Host
from physfed_ray.federation.flat import FlatState, private_parts
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.methods.fedfdd import FedFDDSettings
from physfed_ray.models.frequency import adaptive_mask

CPU = torch.device("cpu")


def red_cnn(encoder, decoder, band, x):
    """RED-CNN that reads a band and the image beside it, and adds to the band."""
    first = encoder.layers[0]
    out, skips = (torch.cat((band, x), 1) - 0.3) / 0.2, []
    for i, layer in enumerate(encoder.layers):
        weight = torch.cat((first.weight, first.guide), 1) if i == 0 else layer.weight
        out = functional.conv2d(out, weight, layer.bias).relu()
        if i in (1, 3):
            skips.append(out)
    for i, layer in enumerate(decoder.layers):
        out = functional.conv_transpose2d(out, layer.weight, layer.bias)
        if i < 4:
            out = (out + skips.pop() if i in (0, 2) else out).relu()
    return out + band


def bands(x, mask):
    """Return x_h and x_l of images, by SciPy."""
    coefficients = dctn(x.double().numpy(), axes=(2, 3), norm="ortho")
    x_l = torch.tensor(idctn(mask.numpy() * coefficients, axes=(2, 3), norm="ortho")).float()
    return x - x_l, x_l


def test_the_low_frequencies_network_is_private(make_method):
    method = make_method("fedfdd")
    network = method.build(1)
    assert {name for name, _ in network.named_children()} == {
        "encoder",
        "decoder",
        "low_encoder",
        "low_decoder",
    }
    assert set(method.shared) == {"encoder", "decoder"}
    assert private_parts(network, method.shared) == ["low_encoder", "low_decoder"]


def test_loss_by_hand(make_method, make_batch, shake):
    method, batch = make_method("fedfdd"), make_batch()
    network, x = shake(method.build(1)), batch.low
    torch.manual_seed(9)
    loss, named = method.loss(network, batch, None)
    torch.manual_seed(9)
    x_h, x_l = bands(x, adaptive_mask(2, (28, 28), (0.43, 0.5), CPU))
    # The high band is raised to the inputs' mean, 0.3, for the network, and lowered behind it.
    high = red_cnn(network.encoder, network.decoder, x_h + 0.3, x) - 0.3
    low = red_cnn(network.low_encoder, network.low_decoder, x_l, x)
    mse = (high + low - batch.full).square().mean()
    torch.testing.assert_close(loss, mse, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(named["mse"], mse.detach(), rtol=1e-4, atol=1e-6)
    assert not torch.equal(loss, method.loss(network, batch, None)[0])  # another mask


def test_each_network_denoises_its_band(make_method, make_batch, shake):
    method, batch = make_method("fedfdd"), make_batch()
    network = shake(method.build(1)).eval()
    x = batch.low
    *parts, image = method.features(network, batch)
    assert torch.equal(image, x)
    f_h, x_h, _, _, f_l, x_l, _, _ = parts
    assert f_h.shape == f_l.shape == (2, 4, 8, 8)
    torch.testing.assert_close(x_h - 0.3 + x_l, x)
    spectrum = dctn((x_h - 0.3).double().numpy(), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(spectrum[:, :, :10, :10], 0, atol=1e-5)  # within 0.43 of the way
    assert np.abs(spectrum).max() > 0.1
    expected = red_cnn(network.encoder, network.decoder, x_h, x) - 0.3
    expected = expected + red_cnn(network.low_encoder, network.low_decoder, x_l, x)
    torch.testing.assert_close(method.denoise(network, batch), expected, rtol=1e-4, atol=1e-4)


def test_evaluation_has_one_mask_a_size(make_method, make_batch, shake):
    method, batch = make_method("fedfdd"), make_batch()
    network = shake(method.build(1)).eval()
    before = torch.get_rng_state()
    together = method.denoise(network, batch)
    assert torch.equal(before, torch.get_rng_state())
    alone = [method.denoise(network, replace(batch, low=batch.low[i : i + 1])) for i in (0, 1)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    network.train()
    assert not torch.equal(method.denoise(network, batch), method.denoise(network, batch))


@pytest.mark.parametrize("backbone", ["red_cnn", "uformer"])
@pytest.mark.parametrize("size", [(36, 36), (23, 41)])
def test_images_of_any_size(make_method, make_batch, shake, backbone, size):
    method, low = make_method("fedfdd", backbone=backbone), torch.rand(2, 1, *size)
    network = method.build(1).eval()
    batch = replace(make_batch(), low=low)
    assert torch.equal(method.denoise(network, batch), low)
    denoised = method.denoise(shake(network), batch)
    assert denoised.shape == low.shape
    assert bool(denoised.isfinite().all())
    assert not torch.allclose(denoised, low)


def test_inspection_says_what_either_network_does(make_method, make_batch, shake):
    method, batch = make_method("fedfdd"), make_batch()
    network = method.build(1).eval()
    assert method.inspect(network, batch) == {"high_correction": 0.0, "low_correction": 0.0}
    shake(network)
    changes = method.inspect(network, batch)
    assert changes["high_correction"] > 0
    assert changes["low_correction"] > 0
    for half in (network.low_encoder, network.low_decoder):
        for parameter in half.parameters():
            parameter.data.zero_()
    high = method.denoise(network, batch) - batch.low
    assert method.inspect(network, batch) == {
        "high_correction": pytest.approx(float(high.square().mean().sqrt()), rel=1e-4),
        "low_correction": 0.0,
    }


@pytest.mark.parametrize("cutoff", [(0.5, 0.43), (-0.1, 0.5), (0.4, 1.1)])
def test_cutoffs_are_two_shares_in_order(cutoff):
    with pytest.raises(ValidationError, match=r"'cutoff' .* in order"):
        FedFDDSettings(cutoff=cutoff)


def test_the_private_network_stays_and_differs(make_spec):
    spec = make_spec("fedfdd")
    server, host, clients = ParameterServer(spec), Host(spec), (0, 1)
    vector, extras = server.broadcast()
    order = Order(1, 1e-2, clients, tuple(ClientTurn(c, 0) for c in clients), (0,))
    results, pieces = host.train(order, vector.copy(), extras)
    layout = FlatState(spec.method.build(spec.seed), spec.method.shared)
    assert {name.partition(".")[0] for name in layout.named()} == {"encoder", "decoder"}
    assert all(piece.size == layout.vector.numel() for piece in pieces.values())
    assert all(result.uploads == {} for result in results)
    vector = server.broadcast()[0]
    scores = [host.seen.evaluate(vector, ClientTurn(c, 1), "test").inspection for c in clients]
    assert scores[0]["low_correction"] != scores[1]["low_correction"] > 0

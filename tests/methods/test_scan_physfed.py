"""SCAN-PhysFed: shared and private parts, both variants' expressions, ablations, codes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.methods.given import ClientInfo, RoundInput, Task
from physfed_ray.methods.scan_physfed import ScanPhysFed, ScanPhysFedSettings
from physfed_ray.models.codes import orthogonal_loss
from physfed_ray.models.red_cnn import RedCNN, RedCNNSettings
from physfed_ray.models.registry import make_backbone, parameter_counts


def test_only_the_decoder_is_private(make_method):
    hypernetworks = {"protocol_hypernetwork", "anatomy_hypernetwork"}
    assert set(make_method("scan_physfed").shared) == {"encoder", *hypernetworks}


def test_the_decoder_can_be_shared(make_method):
    method = make_method("scan_physfed", share_decoder=True)
    assert set(method.shared) == {name for name, _ in method.build(1).named_children()}


def test_the_protocol_can_modulate_the_skips_too(scan, make_batch):
    method, network = scan(modulate_skips=True)
    batch = make_batch(side=36)
    f, skips = network.encoder(batch.low)
    alpha, beta = (
        x.split([f.shape[1]] * 3, 1)
        for x in network.protocol_hypernetwork.head(network.protocol_hypernetwork.code(batch.own_g))
    )
    _, image, shallow, deep = method.features(network, batch)
    scale, shift = alpha[1][:, :, None, None], beta[1][:, :, None, None]
    torch.testing.assert_close(image, skips[0])
    torch.testing.assert_close(shallow, scale * skips[1] + shift)
    scale, shift = alpha[2][:, :, None, None], beta[2][:, :, None, None]
    torch.testing.assert_close(deep, scale * skips[2] + shift)
    assert not torch.allclose(deep, skips[2])


def test_loss_of_the_paper(scan, scan_parts, make_batch, begin):
    method, network = scan(tau=0.3)
    batch = make_batch(side=36)
    state = begin(method, network, batch.own_g)
    f, m, alpha, beta, code, skips = scan_parts(network, batch)
    denoised = network.decoder(alpha * (f * m) + beta, skips)
    mse = (denoised - batch.full).square().mean()
    orth = sum(functional.cosine_similarity(code, c[None]) ** 2 for c in state.everyone[[0, 2]])
    loss, named = method.loss(network, batch, state)
    torch.testing.assert_close(named["mse"], mse.detach())
    torch.testing.assert_close(named["orth"], orth.squeeze().detach())
    torch.testing.assert_close(loss, mse + 0.3 * orth.squeeze())


def test_loss_of_the_paper_with_inner_products(scan, make_batch, begin):
    method, network = scan(orth="inner")
    batch = make_batch()
    state = begin(method, network, batch.own_g)
    code = network.protocol_hypernetwork.code(batch.own_g)
    expected = (code @ state.everyone[[0, 2]].T).square().sum()
    torch.testing.assert_close(method.loss(network, batch, state)[1]["orth"], expected.detach())


@pytest.mark.parametrize("orth", ["cosine", "inner"])
def test_many_clients_cost_a_step_no_more_and_give_the_same_loss(scan, make_batch, orth):
    method, network = scan(orth=orth)  # code_dim is 5: from 7 clients on the Gram matrix is smaller
    batch = make_batch()
    for clients, shape, are_gram in ((6, (5, 5), False), (40, (5, 5), True)):
        codes = method.codes(network, torch.rand(clients, 7))
        given = RoundInput(
            1, ClientInfo(3, "c", PRESETS["paper-1"], 1), np.zeros(0), {"codes": codes.numpy()}
        )
        state = method.begin(network, given)
        assert (state.others.shape, state.are_gram) == (shape, are_gram)
        others = torch.cat([codes[:3], codes[4:]])
        own = network.protocol_hypernetwork.code(batch.own_g)
        expected = orthogonal_loss(own, others, normalise=orth == "cosine").detach()
        torch.testing.assert_close(method.loss(network, batch, state)[1]["orth"], expected)


def test_codes_of_the_others_are_constants(scan, make_batch, begin):
    method, network = scan()
    state = begin(method, network)
    assert len(state.others) == 2
    assert torch.equal(state.others, state.everyone[[0, 2]])
    assert not state.others.requires_grad


def test_codebook_is_computed_without_dropout(scan):
    method, network = scan(variant="public_code")
    g = torch.rand(3, 7)
    assert torch.equal(method.codes(network, g), method.codes(network, g))
    assert network.protocol_hypernetwork.training


def test_given_code_takes_the_place_of_the_own(scan, make_batch):
    method, network = scan()
    batch, other = make_batch(), torch.rand(7)
    (code,) = method.codes(network, other[None])
    swapped = method.denoise(network, batch, code)
    assert torch.equal(swapped, method.denoise(network, replace(batch, g=other.expand(2, -1))))
    assert not torch.allclose(swapped, method.denoise(network, batch))


@pytest.mark.parametrize("scanning", [True, False])
@pytest.mark.parametrize("anatomy", [True, False])
def test_ablations_leave_their_hypernetworks_out(scan, make_batch, begin, scanning, anatomy):
    method, network = scan(scanning=scanning, anatomy=anatomy)
    children = {name for name, _ in network.named_children()}
    assert ("protocol_hypernetwork" in children) == scanning
    assert ("anatomy_hypernetwork" in children) == anatomy
    assert set(method.shared) == children - {"decoder"}
    batch = make_batch()
    _, named = method.loss(network, batch, begin(method, network))
    assert ("orth" in named) == scanning
    same = replace(batch, g=torch.rand(2, 7))
    assert torch.equal(method.denoise(network, batch), method.denoise(network, same)) != scanning
    report = replace(batch, embedding=-batch.embedding)
    assert torch.equal(method.denoise(network, batch), method.denoise(network, report)) != anatomy


def test_without_both_levels_it_is_fedper(make_method, make_batch, shake):
    method = make_method("scan_physfed", scanning=False, anatomy=False)
    fedper, batch = make_method("fedper"), make_batch()
    ours, theirs = shake(method.build(1)), shake(fedper.build(1))
    assert method.shared == fedper.shared
    assert torch.equal(method.denoise(ours, batch), fedper.denoise(theirs, batch))


def test_inspection_sees_whether_the_modulation_lives(make_method, make_batch, shake):
    method = make_method("scan_physfed")
    network, batch = method.build(1), make_batch()
    codes = method.codes(network, torch.rand(3, 7))
    still = method.inspect(network, batch)
    assert still["alpha_mean"] == still["map_mean"] == 1.0
    spreads = [name for name in still if name.endswith("_std")]
    assert len(spreads) == 4
    assert all(still[name] == 0.0 for name in spreads)
    assert method.inspect_codes(network, codes)["alpha_client_std"] == 0.0
    shake(network)
    live = method.inspect(network, batch)
    assert all(live[name] > 0 for name in spreads)
    assert method.inspect_codes(network, codes)["alpha_client_std"] > 0


def test_learning_rate_of_the_hypernetworks(make_method):
    method = make_method("scan_physfed", hyper_lr_scale=3.0)
    assert method.learning_rate_scale == {
        "protocol_hypernetwork": 3.0,
        "anatomy_hypernetwork": 3.0,
    }


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"'anatomy_hidden_dim' \(30\).*'heads' \(4\)"):
        ScanPhysFedSettings(anatomy_hidden_dim=30)


def counts(tokens, length, channels=96, **settings):
    """Return the parameters of every child, without making them."""
    task = Task(
        image_size=256,
        clients=8,
        input_mean=0.0,
        input_std=1.0,
        tokens=tokens,
        dim=length,
        embedding_mean=(0.0,) * length,
        embedding_std=(1.0,) * length,
        backbone=make_backbone(channels=channels),
    )
    method = ScanPhysFed(ScanPhysFedSettings(**settings), task)
    with torch.device("meta"):
        children = {name: make() for name, make in method.children().items()}
    return parameter_counts(torch.nn.ModuleDict(children))


def test_sizes_of_the_paper():
    found = counts(2, 32000, anatomy_hidden_dim=2048, map_size=59)
    assert found["anatomy_hypernetwork"] == pytest.approx(40.3e6, rel=0.01)
    assert found["protocol_hypernetwork"] == pytest.approx(0.06e6, rel=0.01)
    assert found["encoder"] == pytest.approx(0.92e6, rel=0.01)
    assert found["decoder"] == pytest.approx(0.92e6, rel=0.01)


def test_documented_sizes_are_right():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    paper = {"anatomy_hidden_dim": 2048, "map_size": 59}
    for found in (
        counts(2, 32000, **paper),
        counts(1, 32000, **paper),
        counts(1, 384),
        counts(1, 384, channels=16),
    ):
        order = ("encoder", "protocol_hypernetwork", "anatomy_hypernetwork", "decoder")
        shared = sum(found.values()) - found["decoder"]
        row = " | ".join(f"{n:,}" for n in (*(found[name] for name in order), shared))
        assert f"| {row} |" in page


def test_a_map_of_the_anatomy_lies_on_images_alone(make_task):
    class Sinograms(RedCNN):
        """A network over views and bins."""

        domain = "sinogram"

    backbone = Sinograms(RedCNNSettings(channels=2))
    with pytest.raises(PhysFedError, match="features of an image, and those of the backbone"):
        ScanPhysFed(ScanPhysFedSettings(), replace(make_task(), backbone=backbone))

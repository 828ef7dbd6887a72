"""What the authors' code has instead of the paper: its exact expressions, alone and in the loss."""

from dataclasses import replace

import pytest
import torch

from physfed_ray.methods.scan_physfed_public_code import (
    draw,
    feature_cosine_loss,
    modulate,
    orthogonal_loss,
)

F = torch.tensor([[[[2.0, -1.0]], [[4.0, 3.0]]]])
M = torch.tensor([[[[0.5, 2.0]]]])
ALPHA, BETA = torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 10.0]])


def test_modulation():
    # p = relu(alpha * f + beta) = relu(7, -2; 6, 7), then p * 0.9 + p * m * 0.1
    expected = torch.tensor([[[[7 * 0.9 + 7 * 0.5 * 0.1, 0.0]], [[6 * 0.9 + 0.3, 7 * 0.9 + 1.4]]]])
    torch.testing.assert_close(modulate(F, M, ALPHA, BETA), expected)


def test_feature_cosine():
    # channels (3, 4) and (4, 3) at one pixel: 24 / 25; (1, 0) and (-1, 0) at the other: |-1|
    own = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]]]])
    other = torch.tensor([[[[4.0, -1.0]], [[3.0, 0.0]]]])
    assert float(feature_cosine_loss(own, other)) == pytest.approx((0.96 + 1) / 2)


def test_orthogonal_loss_compares_the_bottleneck_alone():
    # p = (7, 6) and (0, 7); the other code gives relu(f) = (2, 4) and (0, 3); a third channel's
    # alpha and beta are for a skip
    skip = torch.tensor([[5.0]])
    own = torch.cat((ALPHA, skip), 1), torch.cat((BETA, skip), 1)
    other = torch.ones(1, 3), torch.zeros(1, 3)
    cosines = (7 * 2 + 6 * 4) / (7**2 + 6**2) ** 0.5 / (2**2 + 4**2) ** 0.5, 1.0
    assert float(orthogonal_loss(F, own, other)) == pytest.approx(sum(cosines) / 2)


def test_any_clients_code_is_drawn_for_each_image():
    torch.manual_seed(0)
    drawn = draw(torch.eye(3), 300)
    assert drawn.shape == (300, 3)
    assert bool((drawn.sum(0) > 50).all())


def test_loss_of_the_public_code(scan, scan_parts, make_batch, begin):
    method, network = scan(variant="public_code", dropout=0.0, tau=0.3)
    batch = make_batch(side=36)
    state = begin(method, network, batch.own_g)
    f, m, alpha, beta, _, skips = scan_parts(network, batch)
    own = (alpha * f + beta).relu()
    mse = (network.decoder(own * 0.9 + own * m * 0.1, skips) - batch.full).square().mean()
    torch.manual_seed(11)
    loss, named = method.loss(network, batch, state)
    torch.manual_seed(11)
    drawn = state.everyone[torch.randint(3, (2,))]
    scale, shift = network.protocol_hypernetwork.head(drawn)
    other = (scale[:, :, None, None] * f + shift[:, :, None, None]).relu()
    dot = (own * other).sum(1)
    length = own.square().sum(1).sqrt() * other.square().sum(1).sqrt()
    distance = (dot / length.clamp(min=1e-8)).abs().mean()
    torch.testing.assert_close(named["mse"], mse.detach())
    torch.testing.assert_close(named["orth"], distance.detach())
    torch.testing.assert_close(loss, mse + 0.3 * distance)


def test_public_code_may_draw_its_own_code_and_drops_half(scan, make_batch, begin):
    method, network = scan(variant="public_code")
    assert network.protocol_hypernetwork.dropout.p == 0.5
    state = begin(method, network)
    batch = make_batch()
    alone = replace(state, everyone=state.everyone[1:2])
    assert bool(method.loss(network, batch, alone)[0].isfinite())
    features = method.features(network, batch)[0]
    assert not torch.equal(features, method.features(network, batch)[0])
    network.eval()
    assert torch.equal(method.features(network, batch)[0], method.features(network, batch)[0])


def test_dropout_is_drawn_for_each_image(scan, make_batch):
    method, network = scan(variant="public_code", anatomy=False)
    batch = make_batch()
    twice = replace(batch, low=batch.low[:1].expand(2, -1, -1, -1))
    f_per = method.features(network, twice)[0]
    assert not torch.equal(f_per[0], f_per[1])

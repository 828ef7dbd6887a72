"""Flat state: views, order, gradients, round trips."""

import torch
from torch import nn

from physfed_ray.federation.flat import FlatState


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"a": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "b": nn.Linear(4, 2)}
    )


def run(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = net.get_submodule("b")(net.get_submodule("a")(x))
    return y


def test_flattening_does_not_change_the_network() -> None:
    x = torch.randn(5, 3)
    plain, flat = network(), network()
    FlatState(flat, ["a", "b"])
    assert torch.equal(run(plain, x), run(flat, x))


def test_network_and_vector_are_one_memory() -> None:
    net = network()
    state = FlatState(net, ["b"])
    state.vector.fill_(2.0)
    assert torch.equal(net.get_submodule("b").weight, torch.full((2, 4), 2.0))
    assert state.vector.numel() == 10


def test_one_adam_over_the_flat_parameter_equals_adam_over_the_parameters() -> None:
    x, plain, flat = torch.randn(6, 3), network(), network()
    state = FlatState(flat, ["a", "b"])
    state.zero_gradient()
    one = torch.optim.Adam(plain.parameters(), lr=0.01)
    other = torch.optim.Adam(state.parameters.values(), lr=0.01)
    for _ in range(4):
        for net, optimizer in ((plain, one), (flat, other)):
            optimizer.zero_grad(set_to_none=net is plain)
            run(net, x).square().mean().backward()
            optimizer.step()
    for p, q in zip(plain.parameters(), flat.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_a_gradient_is_made_when_something_trains() -> None:
    net = network()
    state = FlatState(net, ["a", "b"])
    assert all(p.grad is None for p in net.parameters())
    state.zero_gradient()
    run(net, torch.randn(6, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert state.gradient.abs().sum() > 0
    state.zero_gradient()
    assert all(not p.grad.any() for p in net.parameters() if p.grad is not None)


def test_running_statistics_travel_and_take_no_gradient() -> None:
    net = network()
    state = FlatState(net, ["a"])
    assert [e.name for e in state.entries][-2:] == ["a.1.running_mean", "a.1.running_var"]
    assert state.vector.numel() == state.gradient.numel() + 8
    run(net, torch.randn(8, 3) + 5)
    assert state.named()["a.1.running_mean"].abs().sum() > 0


def test_named_and_pack_are_inverse() -> None:
    state = FlatState(network(), ["a", "b"])
    assert torch.equal(state.pack(state.named()), state.vector)


def test_nothing_shared_is_an_empty_vector() -> None:
    state = FlatState(network(), [])
    assert state.vector.numel() == 0
    assert state.pack({}).numel() == 0

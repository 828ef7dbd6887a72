"""FedDG: what is published, whom a client borrows from, and the gradient of an episode."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method
from physfed_ray.methods.feddg import FedDG, FedDGSettings
from physfed_ray.methods.given import ClientInfo, RoundInput

MakeMethod = Callable[..., Method]
MakeBatch = Callable[..., Batch]


def start(method: Method, published: list[dict[str, np.ndarray]], client: int) -> object:
    """Begin a round for a client, with the bank of what was published."""
    extras = {f"published.{k}": v for k, v in method.collect(published).items()}
    info = ClientInfo(client, "c", PRESETS["paper-1"], 5)
    given = RoundInput(1, info, np.zeros(1, np.float32), extras)
    return method.begin(method.build(1), given)


def test_a_client_publishes_few_amplitudes(make_method: MakeMethod, make_batch: MakeBatch) -> None:
    batch = make_batch()  # two images of 28 pixels
    for spectra, window, shape in (
        (16, 0.01, (2, 1, 1)),
        (1, 0.1, (1, 5, 5)),
        (2, 0.2, (2, 11, 11)),
    ):
        (published,) = make_method("feddg", spectra=spectra, window=window).publish(batch).values()
        assert published.shape == shape
        assert published.dtype == np.float32
        np.testing.assert_allclose(
            published[:, 0, 0], batch.low[: shape[0]].mean((1, 2, 3)), rtol=1e-5
        )


def test_no_phase_leaves(make_method: MakeMethod, make_batch: MakeBatch) -> None:
    """Images moved round the edges have the same amplitudes; nothing says where anything lies."""
    method, batch = make_method("feddg", window=0.3), make_batch()
    moved = replace(batch, low=batch.low.roll((5, 11), (2, 3)), full=batch.full.flip(2))
    here, there = (method.publish(b)["amplitudes"] for b in (batch, moved))
    np.testing.assert_allclose(here, there, atol=1e-6)


def test_the_bank_of_a_client_is_the_others(make_method: MakeMethod) -> None:
    method = make_method("feddg")
    published = [
        {"amplitudes": np.full((count, 3, 3), value, np.float32)}
        for count, value in ((4, 1.0), (3, 2.0), (1, 3.0))
    ]
    banks = [start(method, published, client) for client in range(3)]
    values = [bank.amplitudes[:, 0, 0].tolist() for bank in banks]
    assert values == [[2, 2, 2, 3], [1, 1, 1, 1, 3], [1, 1, 1, 1, 2, 2, 2]]
    for bank, found in zip(banks, values, strict=True):  # and each of them is as likely
        chances = bank.chances.double().numpy()
        shares = [chances[np.array(found) == value].sum() for value in sorted(set(found))]
        np.testing.assert_allclose(shares, shares[0], rtol=1e-6)


def test_transformed_images_lie_between_their_own_and_others_amplitudes(
    make_method: MakeMethod, make_batch: MakeBatch
) -> None:
    method = make_method("feddg")
    published = [{"amplitudes": np.full((2, 1, 1), v, np.float32)} for v in (0.9, 50.0, 0.7)]
    low = make_batch().low[:1].expand(400, 1, 28, 28).contiguous()
    torch.manual_seed(1)
    moved = method.transform(low, start(method, published, 1)).mean((1, 2, 3)).double()
    own = float(low[0].double().mean())  # about 0.5, and never towards the client's own 50
    shares = ((moved - own) / (0.9 - own)).numpy()
    assert shares.min() >= -1e-5
    assert shares.max() <= 1 + 1e-5
    # lambda ~ U[0, 1] towards 0.9 or, half of the times, towards 0.7
    near = (0.7 - own) / (0.9 - own)
    for level in (0.2, 0.4, 0.8):
        expected = level / 2 + min(level / near, 1) / 2
        assert np.mean(shares < level) == pytest.approx(expected, abs=0.08)


class _Slope(nn.Module):
    """y = w x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.3))

    def forward(self, x: Tensor) -> Tensor:
        """Return w x."""
        return self.w * x


class OneParameter(FedDG):
    """FedDG on a network that multiplies the image by its only parameter."""

    shared = ("slope",)

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the slope."""
        return {"slope": _Slope}

    def denoise(self, network: nn.Module, batch: Batch, code: Tensor | None = None) -> Tensor:
        """Return w x."""
        image: Tensor = network.get_submodule("slope")(batch.low)
        return image


@pytest.mark.parametrize("clip", [100.0, 0.01])
@pytest.mark.parametrize("second_order", [False, True])
def test_gradient_of_an_episode(
    make_task: Callable, make_batch: MakeBatch, second_order: bool, clip: float
) -> None:
    """Against the derivatives of the two parabolas, in float64."""
    beta, w = 0.4, 1.3
    settings = FedDGSettings(inner_step=beta, clip=clip, second_order=second_order)
    method, batch = OneParameter(settings, make_task()), make_batch()
    network = method.build(1)
    bank = start(method, [{"amplitudes": np.full((1, 1, 1), 2.0, np.float32)}] * 3, 0)
    torch.manual_seed(5)
    loss, parts = method.loss(network, batch, bank)
    assert network.slope.w.grad is None
    assert float(network.slope.w.detach()) == pytest.approx(w)
    loss.backward()

    torch.manual_seed(5)
    torch.multinomial(torch.ones(2), 2, replacement=True)
    share = torch.rand(2, 1, 1, 1).double().numpy()
    x, y = batch.low.double().numpy(), batch.full.double().numpy()
    t = x + share * (2.0 - x.mean((2, 3), keepdims=True))  # the window has the mean alone
    slope = np.mean(2 * x * (w * x - y))
    step = np.clip(slope, -clip, clip)
    fast = w - beta * step
    chain = 1 - beta * np.mean(2 * x * x) if second_order and clip == 100.0 else 1.0
    z = y + t - x  # the target borrows as much
    outer = np.mean((fast * t - z) ** 2)
    assert abs(step) == (clip if clip < 1 else abs(slope))
    np.testing.assert_allclose(float(parts["outer"]), outer, rtol=1e-5)
    np.testing.assert_allclose(float(loss.detach()), np.mean((w * x - y) ** 2) + outer, rtol=1e-5)
    gradient = slope + np.mean(2 * t * (fast * t - z)) * chain
    np.testing.assert_allclose(float(network.slope.w.grad), gradient, rtol=1e-5)


def test_gradient_of_the_network_is_that_of_finite_differences(
    make_method: MakeMethod, make_batch: MakeBatch, begin: Callable, shake: Callable
) -> None:
    """By the last bias, behind which no ReLU makes the inner gradient jump."""
    batch, slopes = make_batch(), {}
    for second_order in (False, True):
        method = make_method("feddg", second_order=second_order, inner_step=0.05)
        network = shake(method.build(1))
        bank = begin(method, network)
        bias = network.decoder.layers[4].bias

        def value(
            method: Method = method, network: nn.Module = network, bank: object = bank
        ) -> Tensor:
            torch.manual_seed(2)
            loss: Tensor = method.loss(network, batch, bank)[0]
            return loss

        value().backward()
        ends = []
        for step in (1e-2, -2e-2):
            bias.data.add_(step)
            ends.append(float(value().detach().double()))
        slopes[second_order] = float(bias.grad), (ends[0] - ends[1]) / 2e-2
    assert slopes[True][0] == pytest.approx(slopes[True][1], rel=0.01)
    assert slopes[False][0] != pytest.approx(slopes[False][1], rel=0.1)


def test_autocast_learns_the_same(
    make_method: MakeMethod, make_batch: MakeBatch, begin: Callable, shake: Callable
) -> None:
    method, batch = make_method("feddg", inner_step=0.05), make_batch()
    gradients = []
    for enabled in (False, True):
        network = shake(method.build(1))
        bank = begin(method, network)
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss, _ = method.loss(network, batch, bank)
        loss.backward()
        assert all(p.grad.dtype == torch.float32 for p in network.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.99


def test_one_client_has_nobody_to_borrow_from(make_task: Callable) -> None:
    with pytest.raises(PhysFedError, match="only one client"):
        FedDG(FedDGSettings(), replace(make_task(), clients=1))

"""CLEAR-Net: its size, its places, images of any size."""

import pytest
import torch
from torch import nn

from physfed_ray.models.clear_net import TIME, ClearNet, TimeEmbedding


def shaken(channels: int = 3, *, modulation: bool = True) -> ClearNet:
    """Return a network whose last layer does something."""
    torch.manual_seed(1)
    network = ClearNet(channels, modulation)
    nn.init.normal_(network.last.weight)
    return network


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_has_the_paper_s_size() -> None:
    """4.83 M, of which 0.47 M modulate, with three slices in; one slice has 2 * 9 * 64 fewer."""
    full, plain = count(ClearNet(64, True)), count(ClearNet(64, False))
    assert full + 2 * 9 * 64 == pytest.approx(4.83e6, rel=0.002)
    assert full - plain == pytest.approx(0.47e6, rel=0.01)


def test_the_step_is_embedded_by_sines_and_cosines() -> None:
    embedding = TimeEmbedding()
    seen: list[torch.Tensor] = []
    embedding.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    embedding(torch.tensor([7]))
    expected = [7 / 10_000 ** (k / (TIME // 2 - 1)) for k in range(TIME // 2)]
    angles = torch.tensor(expected, dtype=torch.float64)
    waves = torch.cat((angles.sin(), angles.cos())).float()[None]
    torch.testing.assert_close(seen[0], waves, atol=1e-5, rtol=1e-5)


def test_step_estimate_and_low_dose_each_change_the_result() -> None:
    network, x = shaken(), torch.rand(2, 1, 16, 16)
    t, pair = torch.tensor([4]), torch.rand(2, 2, 16, 16)
    plain, modulated = network(x, t), network(x, t, pair)
    assert not torch.allclose(plain, network(x, t + 1))
    assert not torch.allclose(plain, modulated)
    for channel in (0, 1):
        other = pair.clone()
        other[:, channel] += 0.2
        assert not torch.allclose(modulated, network(x, t, other))
    without = shaken(modulation=False)
    assert torch.equal(without(x, t), without(x, t, pair))


def test_sides_that_are_no_multiples_are_filled_up_and_cut() -> None:
    """An image with its own edge repeated by hand gives the same pixels."""
    network, t = shaken().eval(), torch.tensor([2])
    x, pair = torch.rand(1, 1, 13, 22), torch.rand(1, 2, 13, 22)

    def repeat(image: torch.Tensor) -> torch.Tensor:
        wider = torch.cat([image, image[..., -1:].expand(-1, -1, -1, 2)], -1)
        return torch.cat([wider, wider[..., -1:, :].expand(-1, -1, 3, -1)], -2)

    torch.testing.assert_close(
        network(x, t, pair), network(repeat(x), t, repeat(pair))[..., :13, :22]
    )
    assert network(torch.rand(1, 1, 1, 3), t).shape == (1, 1, 1, 3)

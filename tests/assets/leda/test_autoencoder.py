"""The sizes of LEDA's code, images of any size, and norms of any width."""

import pytest
import torch

from physfed_ray.assets.leda.autoencoder import Eye, Leda, norm


def count(module: torch.nn.Module) -> float:
    """Return millions of parameters."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        network = Leda(64, (1, 1, 2, 2, 4), torch.zeros(10, 512))
    assert count(network.encoder) == pytest.approx(5.18, abs=0.01)
    assert count(network.decoder) == pytest.approx(8.21, abs=0.01)
    assert network.factor == 16


@pytest.mark.parametrize(("height", "width"), [(16, 16), (18, 31), (5, 4)])
def test_an_image_of_any_size_comes_back(height: int, width: int) -> None:
    network = Leda(8, (1, 1, 2), torch.randn(10, 6)).eval()
    image, tokens = network(torch.rand(2, 1, height, width))
    assert image.shape == (2, 1, height, width)
    assert tokens.output.shape == (2, 6, -(-height // 4), -(-width // 4))


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (32, 32), (24, 24), (40, 20), (5, 5)])
def test_groups_divide_the_width(channels: int, groups: int) -> None:
    assert norm(channels).num_groups == groups


def test_a_frozen_codebook_is_no_parameter_and_a_learned_one_is() -> None:
    table = torch.randn(10, 6)
    fixed, learned = (Leda(8, (1, 2), table, learned=learned) for learned in (False, True))
    assert "table" not in fixed.state_dict()
    assert "table" in dict(learned.named_parameters())
    assert "table" not in dict(fixed.named_parameters())


def test_an_objective_sees_what_the_autoencoder_does() -> None:
    network = Leda(8, (1, 1, 2), torch.randn(10, 6)).eval()
    images = torch.rand(2, 1, 18, 20)
    z, q = Eye(network)(images)
    assert torch.equal(z, network.features(images))
    assert torch.equal(q, network(images)[1].output)
    assert "decoder" not in dict(Eye(network).named_children())


def test_standardised_features_have_the_codebooks_mean_and_spread() -> None:
    table = 0.3 + 0.05 * torch.randn(50, 6)
    network = Leda(8, (1, 1, 2), table, standardised=True)
    z = network.features(torch.rand(4, 1, 32, 32)).detach()
    torch.testing.assert_close(z.mean((0, 2, 3)), table.mean(0), atol=1e-4, rtol=0)
    spread = (table - table.mean(0)).square().mean().sqrt()
    torch.testing.assert_close(z.std((0, 2, 3)), spread.expand(6), atol=1e-3, rtol=0)
    assert not any(p.requires_grad for p in network.before[1].parameters())

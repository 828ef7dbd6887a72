"""The hypernetworks: start, standardisation, and attention against torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from physfed_ray.models.hypernetworks import AnatomyHypernetwork, ProtocolHypernetwork

D, H, HEADS, S = 12, 8, 2, 3
MEAN, STD = [0.5] * D, [2.0] * D


def anatomy(tokens: int) -> AnatomyHypernetwork:
    torch.manual_seed(1)
    made = AnatomyHypernetwork(D, tokens, H, HEADS, S, MEAN, STD)
    nn.init.normal_(made.to_map.weight)
    return made


def reference(made: AnatomyHypernetwork, f_t: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Eq. 2 and 3 with torch's multi-head attention, query and key included."""
    pooled = ((f_t - 0.5) / 2.0).unflatten(-1, (D // 4, 4)).mean(-1)
    reduced = made.reduce(pooled)
    attention = nn.MultiheadAttention(H, HEADS, batch_first=True)
    parts = [made.query_key, made.value] if made.query_key is not None else [None, made.value]
    with torch.no_grad():
        if parts[0] is not None:
            attention.in_proj_weight[: 2 * H].copy_(made.query_key.weight)
            attention.in_proj_bias[: 2 * H].copy_(made.query_key.bias)
        attention.in_proj_weight[2 * H :].copy_(made.value.weight)
        attention.in_proj_bias[2 * H :].copy_(made.value.bias)
        attention.out_proj.load_state_dict(made.out.state_dict())
    attended, _ = attention(reduced, reduced, reduced, key_padding_mask=~mask)
    means = torch.stack([row[real].mean(0) for row, real in zip(attended, mask, strict=True)])
    return made.to_map(means).view(-1, 1, S, S)


@pytest.mark.parametrize("tokens", [1, 5])
def test_attention_equals_torchs(tokens):
    made = anatomy(tokens)
    f_t = torch.randn(3, tokens, D)
    mask = torch.arange(tokens) < torch.tensor([[tokens], [max(1, tokens - 2)], [1]])
    torch.testing.assert_close(made(f_t, mask), reference(made, f_t, mask))


def test_single_token_has_no_dead_weights():
    made = anatomy(1)
    made(torch.randn(2, 1, D), torch.ones(2, 1, dtype=torch.bool)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.parameters())


def test_padding_has_no_effect():
    made = anatomy(5)
    f_t = torch.randn(1, 5, D)
    mask = torch.tensor([[True, True, False, False, False]])
    other = torch.where(mask[..., None], f_t, torch.full_like(f_t, 1e3))
    torch.testing.assert_close(made(f_t, mask), made(other, mask))


def test_report_without_tokens_gets_the_map_of_nothing():
    made = anatomy(5)
    m = made(torch.randn(1, 5, D), torch.zeros(1, 5, dtype=torch.bool))
    torch.testing.assert_close(m.flatten(), made.to_map.bias)


def test_map_starts_at_one():
    made = AnatomyHypernetwork(D, 1, H, HEADS, S, MEAN, STD)
    m = made(torch.randn(4, 1, D), torch.ones(4, 1, dtype=torch.bool))
    assert torch.equal(m, torch.ones(4, 1, S, S))


def test_constant_dimensions_of_the_embedding_stay_finite():
    made = AnatomyHypernetwork(D, 1, H, HEADS, S, MEAN, [0.0] * D)
    assert bool(made(torch.randn(1, 1, D), torch.ones(1, 1, dtype=torch.bool)).isfinite().all())
    assert not {"mean", "std"} & made.state_dict().keys()


def test_protocol_starts_at_the_identity_for_every_protocol():
    alpha, beta = ProtocolHypernetwork(4, 6, 3)(torch.rand(5, 7))
    assert torch.equal(alpha, torch.ones(5, 3))
    assert torch.equal(beta, torch.zeros(5, 3))


def test_protocol_hypernetwork_is_three_linear_layers():
    torch.manual_seed(0)
    made = ProtocolHypernetwork(4, 6, 3)
    nn.init.normal_(made.to_modulation.weight)
    g = torch.rand(2, 7)
    hidden = functional.relu(made.hidden((g - 0.5) * 4))
    code = made.to_code(hidden)
    expected = made.to_modulation(functional.relu(code))
    torch.testing.assert_close(made.code(g), code)
    alpha, beta = made(g)
    torch.testing.assert_close(torch.cat([alpha, beta], 1), expected)


def test_protocol_hypernetwork_reads_further_entries_of_g():
    made = ProtocolHypernetwork(4, 6, 3, g_size=9)
    assert made.hidden.weight.shape == (6, 9)
    assert made.code(torch.rand(2, 9)).shape == (2, 4)


def test_codes_have_either_sign_and_unit_scale():
    torch.manual_seed(0)
    codes = ProtocolHypernetwork(128, 256, 3).code(torch.rand(8, 7))
    assert bool((codes > 0).any())
    assert bool((codes < 0).any())
    assert 0.3 < codes.square().mean().sqrt().item() < 3


def test_dropout_only_acts_in_training():
    made = ProtocolHypernetwork(16, 16, 3, dropout=0.5)
    g = torch.rand(1, 7)
    assert not torch.equal(made.code(g), made.code(g))
    made.eval()
    assert torch.equal(made.code(g), made.code(g))


def test_autocast_leaves_the_modulation_in_float32():
    protocol, maps = ProtocolHypernetwork(4, 6, 3), anatomy(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert protocol(torch.rand(1, 7))[0].dtype == torch.float32
        f_t, mask = torch.randn(1, 1, D), torch.ones(1, 1, dtype=torch.bool)
        assert maps(f_t, mask).dtype == torch.float32
        inside = maps(f_t, mask)
    assert torch.equal(inside, maps(f_t, mask))

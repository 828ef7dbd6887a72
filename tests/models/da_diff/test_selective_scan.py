"""The scan in chunks is the loop over positions, and so are its gradients."""

import pytest
import torch
from torch import Tensor

from physfed_ray.models.da_diff.selective_scan import selective_scan


def one_after_the_other(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor
) -> Tensor:
    """Scan position by position, as the equations say."""
    state, found = torch.zeros(1), []
    for t in range(x.shape[1]):
        driven = (dt[:, t] * x[:, t])[..., None] * b[:, t, :, None]
        state = torch.exp(dt[:, t, ..., None] * a) * state + driven
        found.append((state * c[:, t, :, None]).sum(-1) + d * x[:, t])
    return torch.stack(found, 1)


def arguments(length: int) -> list[Tensor]:
    """Return two images of four sequences of six channels with three states."""
    rng = torch.Generator().manual_seed(length)
    g, k, d, n = 2, 4, 6, 3
    found = [
        torch.randn(g, length, k, d, generator=rng),
        torch.rand(g, length, k, d, generator=rng) / 2,
        -3 * torch.rand(k, d, n, generator=rng),
        torch.randn(g, length, k, n, generator=rng),
        torch.randn(g, length, k, n, generator=rng),
        torch.randn(k, d, generator=rng),
    ]
    return [tensor.requires_grad_() for tensor in found]


@pytest.mark.parametrize("length", [1, 2, 3, 16, 37, 256])
def test_the_scan_is_the_loop_and_so_are_its_gradients(length: int) -> None:
    given = arguments(length)
    ours, theirs = selective_scan(*given), one_after_the_other(*given)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    pairs = zip(
        torch.autograd.grad((ours * weights).sum(), given),
        torch.autograd.grad((theirs * weights).sum(), given),
        strict=True,
    )
    for mine, wanted in pairs:
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(mine / scale, wanted / scale, rtol=1e-5, atol=1e-5)


def test_autocast_does_not_round_it() -> None:
    given = arguments(16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = selective_scan(*given)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, selective_scan(*given))


def test_a_later_position_changes_no_earlier_one() -> None:
    x, *others = arguments(37)
    changed = x.detach().clone()
    changed[:, 20] += 1
    before, after = selective_scan(x, *others), selective_scan(changed, *others)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 36], after[:, 36])

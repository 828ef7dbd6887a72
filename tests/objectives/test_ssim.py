"""SSIM and MS-SSIM as losses: by hand, as the metric, and as a slow reference."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from physfed_ray.metrics.base import Context
from physfed_ray.metrics.pixelwise import Ssim
from physfed_ray.objectives.registry import make_objective
from physfed_ray.objectives.ssim import structural_similarity

C1, C2 = 0.01**2, 0.03**2
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def images(side: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return three random images and the same with noise, (3, 1, side, side) float64."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 1, side, side, generator=rng, dtype=torch.float64)
    return x, (x + 0.2 * torch.randn(x.shape, generator=rng, dtype=torch.float64)).clamp(0, 1)


def test_two_grey_images_by_hand(target: Callable) -> None:
    # no contrast: SSIM is the luminance term, 2 * 0.5 * 0.25 + C1 over 0.25 + 0.0625 + C1
    full, denoised = torch.full((1, 1, 12, 12), 0.5), torch.full((1, 1, 12, 12), 0.25)
    loss, parts = make_objective("ssim_mixed", alpha=0.75)(denoised, target(full))
    similarity = (0.25 + C1) / (0.3125 + C1)
    assert float(parts["ssim_loss"]) == pytest.approx(1 - similarity, abs=1e-6)
    assert float(parts["l1"]) == 0.25
    assert float(loss) == pytest.approx(0.75 * (1 - similarity) + 0.25 * 0.25, abs=1e-6)


def test_two_grey_images_on_two_scales_by_hand() -> None:
    # contrast is 1 on both scales, and luminance counts on the coarsest alone
    grey = torch.full((1, 1, 22, 22), 0.5, dtype=torch.float64)
    luminance = (0.25 + C1) / (0.3125 + C1)
    weight = WEIGHTS[1] / (WEIGHTS[0] + WEIGHTS[1])
    found = structural_similarity(grey, grey / 2, 2)
    assert found.tolist() == pytest.approx([luminance**weight], rel=1e-9)


@pytest.mark.parametrize("side", [11, 24])
def test_one_scale_is_the_metric(side: int) -> None:
    x, y = images(side)
    expected = Ssim()(y[:, 0].numpy(), x[:, 0].numpy(), Context((0.0, 1.0)))
    np.testing.assert_allclose(structural_similarity(x, y).numpy(), expected, rtol=1e-9)


def reference(x: NDArray[np.float64], y: NDArray[np.float64], scales: int) -> float:
    """Return MS-SSIM of two images, (side, side), window by window."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    product = 1.0
    for scale in range(scales):
        if scale:
            x, y = (i.reshape(len(i) // 2, 2, -1, 2).mean((1, 3)) for i in (x, y))
        ssims, contrasts = [], []
        for row in range(len(x) - 10):
            for column in range(len(x) - 10):
                here = slice(row, row + 11), slice(column, column + 11)
                a, b = x[here], y[here]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                covariance = (window * (a - mean_a) * (b - mean_b)).sum()
                variances = (window * ((a - mean_a) ** 2 + (b - mean_b) ** 2)).sum()
                contrast = (2 * covariance + C2) / (variances + C2)
                luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
                ssims.append(luminance * contrast)
                contrasts.append(contrast)
        product *= np.mean(ssims if scale == scales - 1 else contrasts) ** weights[scale]
    return float(product)


@pytest.mark.parametrize("scales", [2, 3])
def test_more_scales_are_the_slow_reference(scales: int) -> None:
    x, y = images(44)
    found = structural_similarity(x, y, scales)
    expected = [reference(a, b, scales) for a, b in zip(x[:, 0].numpy(), y[:, 0].numpy(),
                                                        strict=True)]  # fmt: skip
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_the_gradient_is_that_of_the_differences() -> None:
    x, y = images(22)
    x, y = x[:1].requires_grad_(), y[:1]
    assert torch.autograd.gradcheck(lambda a: structural_similarity(a, y, 2), (x,), fast_mode=True)


def test_images_that_are_opposite_have_a_finite_gradient() -> None:
    x = images(22)[0].float().requires_grad_()
    structural_similarity(x, 1 - x.detach(), 2).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize(("scales", "side"), [(1, 11), (2, 22), (3, 44), (4, 88), (5, 176)])
def test_the_smallest_image_has_one_window_on_the_coarsest_scale(
    target: Callable, scales: int, side: int
) -> None:
    objective = make_objective("ssim_mixed", scales=scales)
    assert objective.smallest_side == side
    x, y = (i.float() for i in images(side))
    assert bool(objective(y, target(x))[0].isfinite())
    with pytest.raises(RuntimeError):
        objective(y[..., 1:, 1:], target(x[..., 1:, 1:]))


def test_alpha_is_a_share() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        make_objective("ssim_mixed", alpha=1.5)

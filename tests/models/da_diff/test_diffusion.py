"""Residual diffusion: its ends, its sampler, its noise."""

import numpy as np
import pytest
import torch
from torch import Tensor

from physfed_ray.models.da_diff.diffusion import (
    STEPS,
    coefficients,
    noise_of,
    noised,
    sample,
    sampling_times,
    schedule,
)


def pair() -> tuple[Tensor, Tensor, Tensor]:
    """Return full dose, low dose and noise of STEPS small images."""
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randn(STEPS, 1, 2, 2, generator=rng) for _ in range(3))  # type: ignore


def test_the_schedule_is_that_of_the_public_code() -> None:
    a, b = schedule()
    np.testing.assert_allclose(a[[0, 499, 999]], [5e-5, 0.7197, 0.9936], atol=6e-5)
    np.testing.assert_allclose(b[[0, 499, 999]], [0.010, 0.9599, 0.99998], atol=6e-5)


def test_the_true_residual_and_noise_give_the_full_dose_back_from_every_step() -> None:
    clean, low, noise = pair()
    a, b = coefficients(torch.arange(STEPS))
    x = noised(clean, low, a, b, noise)
    back = x - a[:, None, None, None] * (low - clean) - b[:, None, None, None] * noise
    torch.testing.assert_close(back, clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "times"), [(1, [999]), (2, [999, 499]), (4, [999, 749, 499, 249])]
)
def test_the_sampler_asks_at_even_distances(steps: int, times: list[int]) -> None:
    assert sampling_times(steps) == times


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_perfect_network_gives_the_full_dose_whatever_the_noise(steps: int) -> None:
    clean, low, noise = (tensor[:3] for tensor in pair())
    images = sample(lambda x, a: low - clean, low, 5 * noise, steps)
    assert len(images) == steps
    torch.testing.assert_close(images[-1], clean, rtol=0, atol=1e-6)


def test_the_image_between_matters_only_as_the_networks_input() -> None:
    _, low, noise = (tensor[:3] for tensor in pair())
    a = schedule()[0]
    seen = []

    def predict(x: Tensor, time: Tensor) -> Tensor:
        seen.append(x)
        return torch.full_like(x, float(time[0]))

    between, found = sample(predict, low, noise, 2)
    torch.testing.assert_close(found, low - float(a[499]))
    assert seen[1] is between
    torch.testing.assert_close(between, low + noise - float((a[999] - a[499]) * a[999]))
    assert not torch.equal(sample(lambda x, time: x, low, noise, 2)[-1], low)


def test_a_slice_meets_the_same_noise_in_any_batch_and_order() -> None:
    images = torch.rand(4, 1, 9, 7)
    noise = noise_of(images)
    torch.manual_seed(99)
    order = [2, 0, 3, 1]
    assert torch.equal(noise_of(images[order]), noise[order])
    assert torch.equal(noise_of(images[2:3].to(memory_format=torch.channels_last)), noise[2:3])
    other = images.clone()
    other[0, 0, 0, 0] += 1e-3
    assert not torch.equal(noise_of(other)[0], noise[0])
    assert noise[0].flatten()[:4].tolist() != noise[1].flatten()[:4].tolist()
    large = noise_of(torch.rand(1, 1, 128, 128))
    assert abs(float(large.mean())) < 0.05
    assert abs(float(large.std()) - 1) < 0.05

"""The attacks on images work where there is something to find, and are measured by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from physfed_ray.surrogates.attacks import amplitude_features
from physfed_ray.surrogates.file import Attack
from physfed_ray.surrogates.inversion import (
    alikeness,
    correlations,
    inverted,
    regressed,
    train_inverter,
)
from physfed_ray.surrogates.mixing import low_frequencies, mix

SIZE, COUNT, KNOWN = 32, 96, 64


def discs(seed: int) -> Tensor:
    """Return centred ellipses of differing sizes and brightness, (N, 1, n, n) in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    a, b = (rng.uniform(4, 14, (COUNT, 1, 1)) for _ in range(2))
    inside = np.clip(4 * (1.2 - np.hypot(x / a, y / b)), 0, 1)
    images = inside * rng.uniform(0.3, 1.0, (COUNT, 1, 1))
    return torch.from_numpy(images.astype(np.float32))[:, None]


@pytest.fixture(scope="module")
def scene() -> tuple[Tensor, Tensor]:
    """Return patients, and surrogates that have all their amplitudes."""
    torch.set_num_threads(1)
    patients = discs(1)
    return patients, mix(discs(2), patients, 1.0, 1.0)


def psnr(images: Tensor, patients: Tensor) -> float:
    return alikeness(images, patients)["psnr"]


def test_a_network_beats_the_mean_image_where_all_amplitudes_are_there(
    scene: tuple[Tensor, Tensor],
) -> None:
    patients, surrogates = scene
    settings = Attack(epochs=15, width=8, lr=3e-3)
    mean = patients[:KNOWN].mean(dim=0).expand_as(patients[KNOWN:])
    own = psnr(mean, patients[KNOWN:])
    network = train_inverter(surrogates[:KNOWN], patients[:KNOWN], settings, seed=1)
    assert psnr(inverted(network, surrogates[KNOWN:]), patients[KNOWN:]) > own + 2


def test_a_regression_beats_the_mean_image_and_finds_nothing_in_hosts(
    scene: tuple[Tensor, Tensor],
) -> None:
    patients, surrogates = scene
    mean = patients[:KNOWN].mean(dim=0).expand_as(patients[KNOWN:])
    results = []
    for images in (surrogates, discs(2)):
        features = amplitude_features(low_frequencies(images, 0.5))
        found = regressed(features[:KNOWN], patients[:KNOWN], features[KNOWN:])
        results.append(psnr(found, patients[KNOWN:]))
    own = psnr(mean, patients[KNOWN:])
    assert results[0] > own + 2
    assert results[1] < own + 0.5


def test_correlation_of_an_image_is_that_of_its_pixels() -> None:
    one, other = discs(3)[:4], discs(4)[:4]
    wanted = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(correlations(one, other).numpy(), wanted, atol=1e-6)
    assert alikeness(one, one)["correlation"] == pytest.approx(1)

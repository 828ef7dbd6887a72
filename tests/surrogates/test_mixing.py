"""The mixing of amplitudes: its ends, its middle by hand, and who can undo it."""

import pytest
import torch
from torch import Tensor

from physfed_ray.surrogates.mixing import low_frequencies, mix, most_alike, unmixed

SIZE = 32


def some(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


HOSTS, PATIENTS = some(3, 1), some(3, 2)


def spectra(images: Tensor) -> Tensor:
    spectrum: Tensor = torch.fft.fft2(images, norm="forward")
    return spectrum


@pytest.mark.parametrize("alpha", [0.1, 0.25, 1.0])
def test_beta_0_gives_the_host(alpha: float) -> None:
    torch.testing.assert_close(mix(HOSTS, PATIENTS, alpha, 0.0), HOSTS, atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_there_and_back_is_the_image(alpha: float) -> None:
    torch.testing.assert_close(mix(HOSTS, HOSTS, alpha, 0.7), HOSTS, atol=1e-6, rtol=0)


def test_beta_1_on_all_frequencies_has_the_amplitudes_of_the_patient_and_phases_of_the_host() -> (
    None
):
    mixed = spectra(mix(HOSTS, PATIENTS, 1.0, 1.0))
    amplitude, phase = spectra(PATIENTS).abs(), spectra(HOSTS).angle()
    torch.testing.assert_close(mixed.abs(), amplitude, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed, torch.polar(amplitude, phase), atol=1e-6, rtol=0)


def test_inside_the_mask_amplitudes_are_mixed_and_outside_they_are_the_host_s() -> None:
    alpha, beta = 0.25, 0.3
    b = 4  # 0.125 of 32
    own, other = spectra(HOSTS).abs(), spectra(PATIENTS).abs()
    rows = torch.fft.fftfreq(SIZE, 1 / SIZE).abs() <= b
    mask = rows[:, None] & rows[None, :]
    assert int(mask.sum()) == 81
    wanted = torch.where(mask, (1 - beta) * own + beta * other, own)
    torch.testing.assert_close(
        spectra(mix(HOSTS, PATIENTS, alpha, beta)).abs(), wanted, atol=1e-6, rtol=0
    )
    assert low_frequencies(HOSTS, alpha).shape == (3, 1, 9, 9)


@pytest.mark.parametrize("beta", [0.05, 0.5, 1.0])
def test_who_knows_the_host_has_the_amplitudes_of_the_patient(beta: float) -> None:
    found = unmixed(mix(HOSTS, PATIENTS, 0.25, beta), HOSTS, 0.25, beta)
    torch.testing.assert_close(found, low_frequencies(PATIENTS, 0.25), atol=1e-5, rtol=0)


def test_the_host_is_found_in_a_collection() -> None:
    collection = torch.cat([some(20, 3), HOSTS])
    assert most_alike(mix(HOSTS, PATIENTS, 0.25, 1.0), collection).tolist() == [20, 21, 22]

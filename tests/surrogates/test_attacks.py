"""Re-identification: right where amplitudes are the patient's, chance where they are the host's."""

import math

import torch
from torch import Tensor

from physfed_ray.surrogates.attacks import amplitude_features, chance, re_identified
from physfed_ray.surrogates.mixing import low_frequencies, mix

PATIENTS, EACH, SIZE = 12, 8, 32
WHOSE = [patient for patient in range(PATIENTS) for _ in range(EACH)]


def alike() -> Tensor:
    """Return slices that are alike within a patient."""
    generator = torch.Generator().manual_seed(1)
    own = torch.rand(PATIENTS, 1, SIZE, SIZE, generator=generator).repeat_interleave(EACH, 0)
    return own + 0.05 * torch.rand(len(WHOSE), 1, SIZE, SIZE, generator=generator)


def found(beta: float) -> float:
    images = alike()
    hosts = torch.rand(images.shape, generator=torch.Generator().manual_seed(2))
    features = [
        amplitude_features(low_frequencies(x, 0.25))
        for x in (mix(hosts, images, 0.25, beta), images)
    ]
    return re_identified(features[0], features[1], WHOSE)


def test_the_host_alone_identifies_nobody() -> None:
    share = chance(WHOSE)
    spread = math.sqrt(share * (1 - share) / len(WHOSE))
    assert abs(found(0.0) - share) < 3 * spread


def test_amplitudes_of_the_patient_identify_everybody() -> None:
    assert found(1.0) > 0.95


def test_chance_is_counted_by_hand() -> None:
    # Of 4 other slices, patient 0 has 2, patient 1 has 1; patient 2 has no other slice.
    assert chance([0, 0, 0, 1, 1]) == (3 * 2 / 4 + 2 * 1 / 4) / 5
    assert chance([0, 0, 0, 1, 1, 2]) == (3 * 2 / 5 + 2 * 1 / 5) / 5


def test_the_hidden_slice_itself_is_never_in_the_gallery() -> None:
    gallery = torch.tensor([[0.0], [1.0], [1.1], [5.0]])
    # Each slice lies on itself; the nearest other of 0, 1, 2, 3 is 1, 2, 1, 2.
    assert re_identified(gallery, gallery, [0, 0, 1, 1]) == 0.5
    assert re_identified(gallery, gallery, [0, 0, 0, 1]) == 1.0


def test_a_frequency_that_never_changes_says_nothing() -> None:
    features = amplitude_features(torch.ones(3, 1, 2, 2))
    assert features.tolist() == torch.zeros(3, 4).tolist()

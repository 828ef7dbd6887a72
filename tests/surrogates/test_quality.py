"""The quality network: it begins as the identity, learns, and leaves the patient's amplitudes."""

import torch
from torch import Tensor

from physfed_ray.surrogates.file import Quality
from physfed_ray.surrogates.mixing import low_frequencies, mix
from physfed_ray.surrogates.networks import UNet
from physfed_ray.surrogates.quality import enhance, train_quality


def some(seed: int) -> Tensor:
    return torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_untrained_it_changes_nothing() -> None:
    images = some(1)
    assert torch.equal(UNet(4, residual=True)(images), images)


def test_the_second_mixing_brings_the_patient_s_amplitudes_back() -> None:
    torch.set_num_threads(1)
    hosts, patients = some(1), some(2)
    mixed = mix(hosts, patients, 0.25, 1.0)
    network = train_quality(mixed, hosts, Quality(steps=5, width=4, lr=1e-2), seed=1)
    with torch.no_grad():
        made = network(mixed)
    assert not torch.allclose(made, mixed, atol=1e-3)
    wanted = low_frequencies(patients, 0.25)
    assert not torch.allclose(low_frequencies(made, 0.25), wanted, atol=1e-4)
    torch.testing.assert_close(
        low_frequencies(enhance(network, mixed, patients, 0.25, 1.0), 0.25),
        wanted,
        atol=1e-5,
        rtol=0,
    )


def test_a_seed_gives_the_same_network() -> None:
    networks = [
        train_quality(some(1), some(2), Quality(steps=2, width=4), seed=3) for _ in range(2)
    ]
    first, second = (torch.cat([p.flatten() for p in n.parameters()]) for n in networks)
    assert torch.equal(first, second)

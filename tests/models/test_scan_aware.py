"""What the network reads of a scan, in which units it answers, and what its controls leave out."""

import pytest
import torch

from physfed_ray.fields import Batch
from physfed_ray.models.registry import make_backbone
from physfed_ray.models.scan_aware import LEAST, LEFT_OF_STREAKS, TYPICAL, expected_error
from tests.models.test_registry import some


@pytest.fixture
def batch() -> Batch:
    return some(make_backbone("scan_aware"), torch.rand(2, 1, 40, 48))


def test_the_expected_error_is_noise_where_there_are_no_streaks() -> None:
    sigma = 0.01 + torch.rand(1, 1, 20, 20) / 100
    error = expected_error(sigma, torch.zeros_like(sigma))
    torch.testing.assert_close(error, (sigma.square() + LEAST**2).sqrt())
    even = expected_error(torch.zeros_like(sigma), torch.full_like(sigma, 0.02))
    torch.testing.assert_close(
        even, torch.full_like(even, LEFT_OF_STREAKS * 0.02), rtol=1e-3, atol=0
    )


def test_the_answer_counts_in_expected_errors(batch: Batch) -> None:
    backbone = make_backbone("scan_aware", channels=4)
    encoder, decoder = backbone.encoder(0.4, 0.2), backbone.decoder()
    with torch.no_grad():
        decoder.layers[-1].bias.fill_(2.0)
        denoised = decoder(*encoder(*backbone.inputs(batch)))
    error = expected_error(batch["sigma"], batch["streaks"])
    torch.testing.assert_close(denoised, batch["base"] + 2 * error)


def test_every_field_counts(batch: Batch) -> None:
    backbone = make_backbone("scan_aware", channels=4)
    torch.manual_seed(1)
    encoder = backbone.encoder(0.4, 0.2)
    with torch.no_grad():
        f, _ = encoder(*backbone.inputs(batch))
        for name in ("low", "sigma", "streaks", "base"):
            other = batch.each(lambda field, x, name=name: x * 0.9 if field == name else x)
            assert not torch.allclose(encoder(*backbone.inputs(other))[0], f), name


@pytest.mark.parametrize("base", ["low", "smooth"])
def test_another_base_has_its_streaks_in_it(batch: Batch, base: str) -> None:
    low, sigma, streaks, begins = make_backbone("scan_aware", base=base).inputs(batch)
    assert torch.equal(low, batch.low)
    assert torch.equal(sigma, batch["sigma"])
    assert not streaks.any()
    assert torch.equal(begins, batch[base])


def test_a_constant_noise_knows_no_map(batch: Batch) -> None:
    low, sigma, streaks, base = make_backbone("scan_aware", noise="constant").inputs(batch)
    assert sigma.unique().tolist() == pytest.approx([TYPICAL])
    assert torch.equal(streaks, batch["streaks"])
    assert torch.equal(base, batch["base"])
    assert torch.equal(low, batch.low)

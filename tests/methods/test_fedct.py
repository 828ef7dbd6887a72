"""FedCT: private modulation behind each convolution of a shared network."""

from collections.abc import Callable
from dataclasses import replace

import torch

from physfed_ray.federation.flat import private_parts
from physfed_ray.federation.routes import serves_locally
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method
from physfed_ray.models.film import modulated


def test_modulation_is_private_and_acts_on_the_client_s_own_scans_alone(
    make_method: Callable[..., Method], make_batch: Callable[..., Batch], shake: Callable
) -> None:
    method, batch = make_method("fedct"), make_batch()
    network = shake(method.build(1))
    assert set(private_parts(network, method.shared)) == {"specific_encoder", "specific_decoder"}
    encoder, decoder = network.encoder, network.decoder
    own, others = network.specific_encoder, network.specific_decoder
    f, skips = modulated(encoder, own.alpha, own.beta, batch.low)
    expected = modulated(decoder, others.alpha, others.beta, f, skips)
    assert torch.equal(method.denoise(network, batch), expected)
    f, skips = encoder(batch.low)
    visitor = replace(batch, protocol=None)
    assert torch.equal(method.denoise(network, visitor), decoder(f, skips))
    assert not torch.equal(decoder(f, skips), expected)


def test_a_protocol_of_no_client_is_served_by_the_shared_network(
    make_method: Callable[..., Method],
) -> None:
    method = make_method("fedct")
    assert not serves_locally(method, method.build(1))

"""What a host has read stays read."""

from collections.abc import Callable

from physfed_ray.federation.client.network import ClientNetwork
from physfed_ray.federation.spec import Spec


def test_pooled_data_are_put_together_once_with_many_clients(
    make_spec: Callable[..., Spec],
) -> None:
    spec = make_spec("pooled", clients=66)
    network = ClientNetwork(spec)
    together = network.data(*spec.trained_on(0))
    assert len(together) == sum(client.slices for client in spec.clients)
    for files in spec.files:
        for path in (files.validation, files.test):
            assert path is not None
            assert network.data(path) is network.data(path)
    assert network.data(*spec.trained_on(0)) is together

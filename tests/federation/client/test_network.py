"""What a host has read stays read, and what it only reads it does not copy."""

from collections.abc import Callable

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.network import ClientNetwork
from physfed_ray.federation.orders import ClientTurn
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


def test_a_network_that_only_denoises_reads_the_shared_vector_where_it_is(
    make_spec: Callable[..., Spec],
) -> None:
    network = ClientNetwork(make_spec("fedavg", clients=2))
    own = network.shared.vector
    given = np.full(own.numel(), 0.5, np.float32)
    given.flags.writeable = False  # as in Ray's object store
    for _ in range(2):
        network.load_shared(given)
        assert network.shared.vector.data_ptr() == given.ctypes.data
        first = next(network.module.parameters())
        assert first.data_ptr() == given.ctypes.data + 4 * network.shared.entries[0].offset
    network.load(given, ClientTurn(0, 0), trains=True)
    assert network.shared.vector is own
    network.shared.vector.add_(1)
    assert (given == 0.5).all()
    assert bool((next(network.module.parameters()) == 1.5).all())


def test_the_shared_vector_of_another_version_is_refused(make_spec: Callable[..., Spec]) -> None:
    network = ClientNetwork(make_spec("fedavg", clients=2))
    with pytest.raises(PhysFedError, match="must run the same version of physfed_ray"):
        network.load_shared(np.zeros(3, np.float32))

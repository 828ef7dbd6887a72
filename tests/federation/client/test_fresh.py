"""Fresh noise: another scan of the same objects in each round, the same whoever makes it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from physfed_ray.ct.scan import reconstruct
from physfed_ray.data.store import ClientData, read_client_data
from physfed_ray.federation.client.fresh import SLICES_AT_ONCE, rescan
from physfed_ray.federation.client.network import ClientNetwork
from physfed_ray.federation.spec import Spec
from physfed_ray.window import normalise
from tests.conftest import random_client_data, with_expected

MakeSpec = Callable[..., Spec]


@pytest.fixture
def spec(make_spec: MakeSpec) -> Spec:
    """Return a federation of three clients with fresh noise."""
    return make_spec("fedavg", noise="fresh")


def slices_of(spec: Spec, client: int) -> ClientData:
    path = spec.files[client].train
    assert path is not None
    return read_client_data(path, ["expected"])


def many_slices(spec: Spec, count: int) -> ClientData:
    """Return slices of two patients, of more than are reconstructed together."""
    data = with_expected(random_client_data(5, count), spec.clients[0].protocol)
    patient = ["a"] * (count // 2) + ["b"] * (count - count // 2)
    return replace(data, patient=patient, slice=np.arange(count) % (count // 2))


def test_every_round_client_patient_and_slice_has_its_own_noise(spec: Spec) -> None:
    data = many_slices(spec, SLICES_AT_ONCE + 2)
    same = replace(data, extra={"expected": np.repeat(data.extra["expected"][:1], len(data), 0)})
    low = rescan(spec, 0, 1, same)["low"]
    assert low.shape == data.low.shape
    clients = (spec.clients[0], replace(spec.clients[1], protocol=spec.clients[0].protocol))
    others = replace(spec, seed=2), replace(spec, clients=clients)
    images = [*low, *rescan(spec, 0, 2, same)["low"], *rescan(others[0], 0, 1, same)["low"],
              *rescan(others[1], 1, 1, same)["low"]]  # fmt: skip
    assert len({image.tobytes() for image in images}) == 4 * len(data)
    np.testing.assert_array_equal(rescan(spec, 0, 1, same)["low"], low)


def test_another_users_pseudonyms_do_not_change_it(spec: Spec) -> None:
    data = many_slices(spec, 6)
    theirs = replace(data, patient=["x"] * 3 + ["y"] * 3)
    for a, b in ((data, theirs), (data, replace(data, patient=["z"] * 6))):
        low, other = (rescan(spec, 0, 1, slices)["low"] for slices in (a, b))
        assert np.array_equal(low, other) == (b is theirs)


def test_the_mean_over_rounds_is_the_scan_without_noise(spec: Spec) -> None:
    data, rounds = slices_of(spec, 1), 200
    lows = np.stack([rescan(spec, 1, n, data)["low"] for n in range(1, rounds + 1)])
    protocol = spec.clients[1].protocol
    quiet = reconstruct(data.extra["expected"].copy(), protocol, spec.simulation)
    inside = (lows > 0).all(0) & (lows < 1).all(0)  # no value was cut off by the window
    assert inside.mean() > 0.4
    error = (lows.mean(0) - normalise(quiet, spec.window_hu))[inside]
    spread = lows.std(0)[inside]
    assert spread.min() > 1e-3
    assert np.abs(error / (spread / np.sqrt(rounds))).mean() < 1.0  # 0.8 of a normal distribution


def test_a_client_trains_on_the_rounds_scans_and_on_nothing_else_that_is_new(spec: Spec) -> None:
    network = ClientNetwork(spec)
    first, data = slices_of(spec, 2), network.training_data(2, 3)
    np.testing.assert_array_equal(data.low, rescan(spec, 2, 3, first)["low"])
    assert not np.array_equal(data.low, first.low)
    for name in ("full", "body", "embedding", "slice"):
        np.testing.assert_array_equal(getattr(data, name), getattr(first, name))
    assert data.extra == {}
    assert network.data(*spec.trained_on(2)).low.tobytes() == first.low.tobytes()
    fixed = ClientNetwork(replace(spec, noise="fixed"))
    assert fixed.training_data(2, 3).low.tobytes() == first.low.tobytes()


def test_pooled_slices_are_scanned_under_their_owners_protocols(make_spec: MakeSpec) -> None:
    spec = make_spec("pooled", noise="fresh")
    assert len({slices_of(spec, client).extra["expected"].shape for client in range(3)}) == 3
    pooled = ClientNetwork(spec).training_data(0, 2)
    owned = [rescan(spec, client, 2, slices_of(spec, client))["low"] for client in range(3)]
    np.testing.assert_array_equal(pooled.low, np.concatenate(owned))
    full = [slices_of(spec, client).full for client in range(3)]
    np.testing.assert_array_equal(pooled.full, np.concatenate(full))

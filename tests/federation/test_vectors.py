"""Methods that need every client's vector: a coordinate-wise median, by hand and on any hosts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.federation.channel.base import Channel, NoSettings
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from physfed_ray.federation.vectors import Vectors
from physfed_ray.methods.base import Method
from physfed_ray.methods.fedavg import FedAvg
from physfed_ray.methods.given import Aggregation
from tests.federation.channel.quantised import Quantised, QuantisedSettings
from tests.federation.test_rounds import (
    ASYNC,
    LATE,
    InterruptedRunError,
    Run,
    interrupt,
    of_speeds,
)

MakeSpec = Callable[..., Spec]
BLOCK = 1000


class Median(FedAvg):
    """Takes the median of each parameter over the clients, a block of them at a time."""

    name = "median"
    linear = False

    def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the medians; which clients there were goes with them."""
        vectors, median = aggregation.vectors, np.empty_like(aggregation.previous)
        for start in range(0, median.size, BLOCK):
            part = np.s_[start : start + BLOCK]
            median[part] = np.median(np.stack([v[part] for v in vectors.values()]), axis=0)
        assert list(vectors) == [client.id for client in aggregation.clients]
        return median, {"clients": np.array([client.index for client in aggregation.clients])}


class ApartMean(FedAvg):
    """Is FedAvg, but gets every vector."""

    name = "apart_mean"
    linear = False


def of(kind: type[Method], spec: Spec) -> Spec:
    return replace(spec, method=kind(spec.method.settings, spec.method.task))


def trained_alone(spec: Spec, client: int) -> np.ndarray:
    """Return what a client has trained at the end of the first round."""
    start = ParameterServer(spec).broadcast()[0]
    order = Order(1, spec.training.lr, (client,), (ClientTurn(client, 0),), (0,))
    ((_, sent),) = Host(spec).train(order, start, {})[1].items()
    return np.array(sent)


def test_medians_are_those_of_what_the_clients_trained(make_spec: MakeSpec) -> None:
    plain = make_spec("fedavg", clients=5, unseen=0, rounds=1)
    alone = np.stack([trained_alone(plain, client) for client in range(5)])
    run = Run(of(Median, plain)).go()
    assert np.array_equal(run.vector, np.median(alone, axis=0).astype(np.float32))
    assert not np.array_equal(run.vector, Run(plain).go().vector)
    assert run.runtime.server("broadcast")[1]["clients"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("settings", [{"participation": 0.7}, LATE, ASYNC])
def test_neither_hosts_nor_interruptions_change_the_bits(
    make_spec: MakeSpec, tmp_path: Path, settings: dict[str, Any]
) -> None:
    make = {"clients": 5, "unseen": 0, "rounds": 4, "settings": {"weights": "samples"}}
    spec = of(Median, of_speeds(make_spec("fedavg", **make)))
    runs = [Run(spec, hosts, **settings).go() for hosts in (1, 2, 3)]
    stopped = of_speeds(make_spec("fedavg", **make, run_root=tmp_path / "run"))
    with pytest.raises(InterruptedRunError):
        Run(of(Median, stopped), at=interrupt(3), **settings).go()
    runs.append(Run(of(Median, stopped), 2, **settings).go())
    for run in runs[1:]:
        assert np.array_equal(run.vector, runs[0].vector)
    assert runs[1].rows == runs[2].rows == runs[0].rows


@pytest.mark.parametrize("settings", [{"participation": 0.7}, LATE, ASYNC])
@pytest.mark.parametrize("weights", ["uniform", "samples"])
def test_their_mean_is_there_too(
    make_spec: MakeSpec, weights: str, settings: dict[str, Any]
) -> None:
    spec = of_speeds(make_spec("fedavg", clients=5, unseen=0, settings={"weights": weights}))
    summed, apart = Run(spec, 2, **settings).go(), Run(of(ApartMean, spec), 3, **settings).go()
    if "participation" in settings and len(settings) == 1:
        assert np.array_equal(apart.vector, summed.vector)
    np.testing.assert_allclose(apart.vector, summed.vector, rtol=0, atol=1e-6)
    assert apart.row("bytes_up") == summed.row("bytes_up")


def test_the_server_copies_no_vector(make_spec: MakeSpec) -> None:
    spec = of(Median, make_spec("fedavg", clients=3, unseen=0))
    seen: list[Aggregation] = []

    class Watched(Median):
        def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            seen.append(aggregation)
            return super().aggregate(aggregation)

    server = ParameterServer(of(Watched, spec))
    size = server.broadcast()[0].size
    sent = [np.full(size, value, np.float32) for value in (1.0, 5.0, 2.0)]
    server.aggregate(1, [0, 2], {}, [], False, {(0, 0): sent[0], (0, 1): None}, {(0, 2): sent[2]})
    vectors = seen[0].vectors
    assert list(vectors) == ["c1", "c3"]
    assert np.shares_memory(vectors["c1"], sent[0])
    with pytest.raises(ValueError, match="read-only"):
        vectors["c3"][0] = 1
    assert sent[2].flags.writeable
    assert set(server.broadcast()[0]) == {1.5}


def test_a_client_that_nobody_accounts_for_is_noticed(make_spec: MakeSpec) -> None:
    server = ParameterServer(of(Median, make_spec("fedavg", clients=3, unseen=0)))
    size = server.broadcast()[0].size
    with pytest.raises(ValueError, match="incomplete"):
        server.aggregate(1, [0], {}, [], False, {(0, 0): np.zeros(size, np.float32)})


def test_a_channel_decodes_them_one_by_one(make_spec: MakeSpec) -> None:
    spec = of(Median, make_spec("fedavg", clients=3, unseen=0, rounds=2))
    plain = Run(spec, 2).go()
    coded = replace(spec, channel=Quantised(QuantisedSettings(clip=1e6)))
    runs = [Run(coded, hosts).go() for hosts in (1, 3)]
    assert np.array_equal(runs[0].vector, runs[1].vector)
    np.testing.assert_allclose(runs[0].vector, plain.vector, rtol=0, atol=1e-6)

    class Copying(Channel):
        name = "copying"

    copied = Run(replace(spec, channel=Copying(NoSettings())), 3).go()
    assert np.array_equal(copied.vector, plain.vector)


def test_a_vector_is_decoded_each_time_that_it_is_asked_for() -> None:
    asked: list[str] = []

    def decode(client: str, sent: np.ndarray) -> np.ndarray:
        asked.append(client)
        return sent / 2

    vectors = Vectors({"a": np.array([2.0]), "b": np.array([4.0])}, decode)
    assert (list(vectors), len(vectors), "b" in vectors, asked) == (["a", "b"], 2, True, ["b"])
    assert [v.tolist() for v in vectors.values()] == [[1.0], [2.0]]
    assert asked == ["b", "a", "b"]

"""Inline and Ray give the same bits, whatever the number of hosts; nothing private leaves."""

import os
import pickle
import re
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from torch import Tensor, nn

from physfed_ray.data.store import read_client_data, write_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Federation
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.runtime import Runtime
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.serving import FinalResults, evaluate_all
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Batch
from physfed_ray.methods.fedavg import FedAvg
from physfed_ray.methods.fedper import FedPer
from physfed_ray.methods.given import RoundInput
from physfed_ray.methods.registry import METHODS
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime import on_ray
from physfed_ray.runtime.cluster import Slots
from physfed_ray.runtime.inline import InlineRuntime
from physfed_ray.runtime.on_ray import RayRuntime
from physfed_ray.runtime.placement import Placed, reserve
from tests.federation.channel.quantised import Quantised, QuantisedSettings
from tests.federation.scripted import ScriptedRuntime, at, dies, is_slow, server_dies
from tests.federation.test_members import with_server
from tests.federation.test_rounds import ASYNC, LATE, Run, of_speeds
from tests.federation.test_vectors import Median

MakeSpec = Callable[..., Spec]
HOURS_S = 7200


# Hosts take seconds to start: the others exchange the same messages in one process, read-only
# arrays included. One keeps submodules with statistics, with fresh noise; one has extras, whole
# children and codes. For pooled: test_pooled.py.
ON_RAY = ["fedbn", "scan_physfed"]


def on_one_node(hosts: int) -> Placed:
    return reserve(lambda: Slots((hosts,)))


def sent(value: object) -> Any:
    """Return a copy whose arrays are read-only, as those that come out of Ray's object store."""
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(message, buffers=[bytes(buffer) for buffer in buffers])


class Apart:
    """An object that gets copies of what it is called with, and gives copies, as actors do."""

    def __init__(self, inner: object, path: str = "") -> None:
        self._inner, self._path = inner, path

    def __getattr__(self, name: str) -> "Apart":
        return Apart(self._inner, f"{self._path}.{name}".removeprefix("."))

    def __call__(self, *arguments: object) -> object:
        """Call it with copies, and return a copy."""
        return sent(attrgetter(self._path)(self._inner)(*sent(arguments)))


class Messages(InlineRuntime):
    """Hosts and a server in one process that share nothing but messages."""

    def __init__(self, spec: Spec, hosts: int) -> None:
        super().__init__(spec, hosts)
        self._server = Apart(ParameterServer(spec))  # type: ignore[assignment]
        self._hosts = [Apart(Host(sent(spec))) for _ in self.assignment]  # type: ignore[misc]


def run(
    spec: Spec, place: Runtime, events: list[Event] | None = None, **settings: object
) -> tuple[Rounds, FinalResults, np.ndarray]:
    directory = None if spec.run_root is None else RunDirectory(spec.run_root)
    federation = Federation(**settings)
    record = [] if events is None else events
    with closing(place):
        rounds = Rounds(spec, federation, place, directory, record.append, lambda rows: None)
        rounds.resume()
        rounds.run()
        results = evaluate_all(rounds)
        return rounds, results, np.array(place.server("broadcast")[0])


def order(clients: Iterable[int]) -> Order:
    """Return the order of a first round."""
    jobs = tuple(ClientTurn(client, 0) for client in clients)
    return Order(1, 1e-3, tuple(job.client for job in jobs), jobs, (0,))


def numbers(rounds: Rounds, results: FinalResults) -> dict[tuple[object, ...], float]:
    rows = [*rounds.metrics.rows(), *results.rows]
    return {r[:4]: r[4] for r in rows if r[2] != "system" and r[3] != "seconds"}


@pytest.mark.parametrize("method", ON_RAY)
def test_ray_equals_inline_bit_for_bit(make_spec: MakeSpec, ray_session: None, method: str) -> None:
    """One of them with fresh noise, which other processes reconstruct with their own threads."""
    noise = "fresh" if method == "fedbn" else "fixed"
    spec = make_spec(method, clients=5, unseen=2, noise=noise)
    alone = run(spec, InlineRuntime(spec))
    packed = run(spec, RayRuntime(spec, on_one_node(2)))
    assert np.array_equal(alone[2], packed[2])
    assert numbers(*alone[:2]) == numbers(*packed[:2])
    assert alone[1].slices == packed[1].slices


def of_medians(make_spec: MakeSpec) -> Spec:
    spec = make_spec("fedavg", clients=5, unseen=0, settings={"weights": "samples"})
    return replace(spec, method=Median(spec.method.settings, spec.method.task))


def quantised(make_spec: MakeSpec) -> Spec:
    spec = make_spec("fedavg", clients=5, unseen=0, settings={"weights": "samples"})
    return replace(spec, channel=Quantised(QuantisedSettings(clip=0.01)))


@pytest.mark.parametrize("make", [of_medians, quantised])
def test_single_vectors_and_integers_travel(
    make_spec: MakeSpec, make: Callable[[MakeSpec], Spec]
) -> None:
    spec = make(make_spec)
    alone, apart = run(spec, InlineRuntime(spec)), run(spec, Messages(spec, 3))
    assert np.array_equal(alone[2], apart[2])
    assert numbers(*alone[:2]) == numbers(*apart[:2])


def test_single_vectors_travel_on_ray(make_spec: MakeSpec, ray_session: None) -> None:
    spec = of_medians(make_spec)
    alone = run(spec, InlineRuntime(spec))
    packed = run(spec, RayRuntime(spec, on_one_node(2)))
    assert np.array_equal(alone[2], packed[2])
    assert numbers(*alone[:2]) == numbers(*packed[:2])


def test_the_server_trains_on_ray(make_spec: MakeSpec, ray_session: None) -> None:
    """An actor of its node has the server's file, and the host's name has the server's."""
    spec = with_server(make_spec("fedper", clients=4, unseen=1))
    alone, place = run(spec, InlineRuntime(spec)), RayRuntime(spec, on_one_node(2))
    assert place._name(1).endswith("..server")
    packed = run(spec, place)
    assert np.array_equal(alone[2], packed[2])
    assert numbers(*alone[:2]) == numbers(*packed[:2])


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ON_RAY])
def test_hosts_that_exchange_messages_alone_give_the_same_bits(
    make_spec: MakeSpec, method: str
) -> None:
    spec = make_spec(method, clients=5, unseen=2)
    alone, apart = run(spec, InlineRuntime(spec)), run(spec, Messages(spec, 3))
    assert np.array_equal(alone[2], apart[2])
    assert numbers(*alone[:2]) == numbers(*apart[:2])
    assert alone[1].slices == apart[1].slices


def test_inline_hosts_do_not_change_the_bits(make_spec: MakeSpec) -> None:
    spec = make_spec("fedper", clients=7, local_epochs=2)
    vectors = [run(spec, InlineRuntime(spec, hosts))[2] for hosts in (1, 3, 7)]
    assert all(np.array_equal(vectors[0], v) for v in vectors[1:])


@pytest.mark.parametrize("method", ["scan_physfed", "pooled"])
def test_fresh_noise_has_the_same_bits_on_any_hosts_and_when_resumed(
    make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    make = {"method": method, "clients": 5, "noise": "fresh"}
    whole = make_spec(**make, rounds=4, run_root=tmp_path / "whole")
    expected = run(whole, InlineRuntime(whole))
    apart = make_spec(**make, rounds=4)
    half = make_spec(**make, rounds=2, run_root=tmp_path / "half")
    run(half, InlineRuntime(half, 2))
    rest = make_spec(**make, rounds=4, run_root=tmp_path / "half")
    for other in (run(apart, Messages(apart, 3)), run(rest, InlineRuntime(rest, 3))):
        assert np.array_equal(expected[2], other[2])
        assert numbers(*expected[:2]) == numbers(*other[:2])
    first = replace(apart, noise="fixed")
    fixed = run(first, InlineRuntime(first))
    assert not np.array_equal(expected[2], fixed[2])
    assert inputs(expected[1]) == inputs(fixed[1])  # what is tested keeps its noise


def inputs(results: FinalResults) -> dict[tuple[object, ...], float]:
    rows = {row[:4]: row[4] for row in results.rows if row[2].endswith("/input")}
    assert {row[2].split("/")[0] for row in rows} == {"validation", "test", "unseen"}
    return rows


@pytest.mark.parametrize("method", list(METHODS))
def test_three_rounds_reduce_the_loss(make_spec: MakeSpec, method: str) -> None:
    spec = make_spec(method, rounds=6, lr=3e-3, local_epochs=3, batch_size=4, evaluate_every=6)
    rounds, _, _ = run(spec, InlineRuntime(spec))
    losses = [
        np.mean([r[4] for r in rounds.metrics.rows() if r[0] == n and r[2:4] == ("train", "mse")])
        for n in (1, 6)
    ]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("method", list(METHODS))
def test_only_the_declared_children_leave_a_host(make_spec: MakeSpec, method: str) -> None:
    spec = make_spec(method)
    host, server = Host(spec), ParameterServer(spec)
    server.collect(host.publish(range(3)))
    vector, extras = server.broadcast()
    network = spec.method.build(spec.seed)
    shared = sum(
        p.numel() for name in spec.method.shared for p in network.get_submodule(name).parameters()
    )
    results, pieces = host.train(order(range(3)), vector, extras)
    assert vector.size == shared
    assert all(piece is not None and piece.size == shared for piece in pieces.values())
    assert len(results) == 3
    for client in range(3):
        (result,), pieces = host.train(order([client]), vector, extras)
        (sent,) = (piece for piece in pieces.values() if piece is not None)
        others = [a for a in result.uploads.values() if not np.isin(a, sent).all()]
        assert sum(a.size for a in others) < 100  # what is not shared anyway is small


def test_fedavg_average_is_the_mean_of_what_clients_trained_alone(make_spec: MakeSpec) -> None:
    spec = make_spec("fedavg", clients=3, rounds=1)
    server = ParameterServer(spec)
    vector, extras = server.broadcast()
    start = vector.copy()
    alone = []
    for client in range(3):
        _, pieces = Host(spec).train(order([client]), start, extras)
        alone.append(np.array(next(iter(pieces.values())), np.float64))
    _, _, together = run(make_spec("fedavg", clients=3, rounds=1, lr=1e-3), InlineRuntime(spec))
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-6, atol=1e-8)


def test_partial_participation_trains_some_and_keeps_the_rest(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec("fedper", clients=6, rounds=4, run_root=tmp_path / "run")
    rounds, _, _ = run(spec, InlineRuntime(spec, 2), participation=0.34)
    trained = {
        n: {r[1] for r in rounds.metrics.rows() if r[0] == n and r[2] == "train"}
        for n in range(1, 5)
    }
    assert all(len(clients) == 3 for clients in trained.values())
    assert len({frozenset(c) for c in trained.values()}) > 1
    last = {c: max((n for n in trained if c in trained[n]), default=0) for c in
            rounds.manifest.private_rounds}  # fmt: skip
    assert rounds.manifest.private_rounds == last


@pytest.mark.parametrize("method", list(METHODS))
def test_resume_equals_the_undisturbed_run(
    make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    whole = make_spec(method, clients=4, rounds=4, run_root=tmp_path / "whole")
    expected = run(whole, InlineRuntime(whole, 2), participation=0.6)
    half = make_spec(method, clients=4, rounds=2, run_root=tmp_path / "half")
    run(half, InlineRuntime(half), participation=0.6)
    rest = make_spec(method, clients=4, rounds=4, run_root=tmp_path / "half")
    resumed = run(rest, InlineRuntime(rest, 3), participation=0.6)
    assert np.array_equal(expected[2], resumed[2])
    assert numbers(*expected[:2]) == numbers(*resumed[:2])


def assert_stale_updates_survive(
    make_spec: MakeSpec, folder: Path, resume: Callable[[Spec], Runtime], settings: dict[str, Any]
) -> None:
    """Assert that a run with stale updates, resumed elsewhere, has the bits of a whole one."""
    make = {"method": "scan_physfed", "clients": 5, "evaluate_every": 3}
    calm = of_speeds(make_spec(**make, rounds=6, run_root=folder / "calm"))
    expected = run(calm, InlineRuntime(calm), **settings)
    half = of_speeds(make_spec(**make, rounds=3, run_root=folder / "half"))
    rounds, _, _ = run(half, InlineRuntime(half, 2), **settings)
    assert rounds.manifest.bases
    rest = of_speeds(make_spec(**make, rounds=6, run_root=folder / "half"))
    resumed = run(rest, resume(rest), **settings)
    assert np.array_equal(expected[2], resumed[2])
    assert numbers(*expected[:2]) == numbers(*resumed[:2])
    ages = {r[0]: r[4] for r in resumed[0].metrics.rows() if r[3] == "staleness"}
    assert list(ages) == [1, 2, 3, 4, 5, 6]
    assert max(ages.values()) >= 0.5


@pytest.mark.parametrize("settings", [LATE, ASYNC], ids=["late", "async"])
def test_stale_updates_give_the_same_bits_also_when_resumed(
    make_spec: MakeSpec, tmp_path: Path, settings: dict[str, Any]
) -> None:
    assert_stale_updates_survive(make_spec, tmp_path, lambda spec: Messages(spec, 2), settings)


def test_stale_updates_give_the_same_bits_on_ray_when_resumed(
    make_spec: MakeSpec, ray_session: None, tmp_path: Path
) -> None:
    def go_on(spec: Spec) -> Runtime:
        return RayRuntime(spec, on_one_node(2))

    assert_stale_updates_survive(make_spec, tmp_path, go_on, ASYNC)


def poison(spec: Spec, client: int) -> None:
    """Put one NaN into a client's training images."""
    path = spec.files[client].train
    assert path is not None
    data = read_client_data(path)
    low = data.low.copy()
    low[-1, 3, 3] = np.nan
    write_client_data(path, replace(data, low=low))


def test_a_client_whose_loss_is_not_finite_is_named_and_left_out(make_spec: MakeSpec) -> None:
    spec = make_spec("fedavg", clients=3, rounds=2)
    poison(spec, 1)
    with pytest.raises(PhysFedError, match=r"quorum of 3 \(c2: loss is nan in round 1, batch \d"):
        run(spec, InlineRuntime(spec))
    events: list[Event] = []
    _, _, vector = run(spec, InlineRuntime(spec), events, quorum=0.6)
    assert np.isfinite(vector).all()
    assert [list(e["missing"]) for e in events if e["event"] == "round"] == [["c2"], ["c2"]]


class WithoutGradient(FedAvg):
    """Has a finite loss whose gradient is 0 / 0."""

    def loss(
        self, network: nn.Module, batch: Batch, state: RoundInput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the parent's loss."""
        loss, parts = super().loss(network, batch, state)
        return loss + (0 * next(network.parameters()).sum()).sqrt(), parts


def test_a_client_whose_last_step_is_not_finite_is_named(make_spec: MakeSpec) -> None:
    spec = make_spec("fedavg", clients=3, rounds=1, batch_size=8)
    spec = replace(spec, method=WithoutGradient(spec.method.settings, spec.method.task))
    with pytest.raises(PhysFedError, match="c1: update is not finite in round 1, after batch 1"):
        run(spec, InlineRuntime(spec))


def test_a_client_that_misses_the_deadline_is_left_out(make_spec: MakeSpec) -> None:
    spec = make_spec("fedavg", clients=3, rounds=1, local_epochs=2000)
    with pytest.raises(PhysFedError, match="missed the deadline after"):
        run(spec, InlineRuntime(spec), deadline_s=0.05)


class Hanging(FedPer):
    """Hangs with client c1 when a file is there, which is then gone."""

    file: Path

    def begin(self, network: nn.Module, round_input: RoundInput) -> Any:
        """Return what the parent does, maybe hours later."""
        if round_input.client.id == "c1" and self.file.exists():
            self.file.unlink()
            time.sleep(HOURS_S)
        return super().begin(network, round_input)


def pid_of(actor: Any) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda actor: os.getpid())))


@pytest.mark.cluster
def test_what_dies_or_hangs_on_ray_is_lost_as_a_script_says(
    make_spec: MakeSpec, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of a host and of the server, and a host that hangs, in the middle of rounds.

    ``tests/federation/test_recovery.py`` proves by such scripts what a run survives.
    """
    monkeypatch.setattr(on_ray, "GRACE_S", 1.0)
    make = {"method": "fedper", "clients": 4, "rounds": 4, "evaluate_every": 9}
    settings = Federation(quorum=0.5, deadline_s=6)
    script = [
        at("train", 2, dies(1)),
        at("server.save", 2, server_dies),
        at("train", 5, is_slow(0)),
    ]
    spec = make_spec(**make, run_root=tmp_path / "scripted")
    expected = Run(
        spec, 2, make=lambda spec, hosts: ScriptedRuntime(spec, hosts, script), quorum=0.5
    ).go()

    spec = make_spec(**make, run_root=tmp_path / "killed")
    method = Hanging(spec.method.settings, spec.method.task)
    method.file = tmp_path / "hang"
    spec = replace(spec, method=method)
    events: list[Event] = []

    def disturb(event: Event) -> None:
        events.append(event)
        done = [event["round"] for event in events if event["event"] == "round"]
        if event["event"] == "round" and done == [1]:
            os.kill(pid_of(place._hosts[1]), signal.SIGKILL)
        if event["event"] == "round" and done == [1, 2]:
            os.kill(pid_of(place._server), signal.SIGKILL)
        if event["event"] == "round" and done == [1, 2, 2]:
            method.file.touch()

    with closing(RayRuntime(spec, on_one_node(2))) as place:
        rounds = Rounds(
            spec, settings, place, RunDirectory(spec.run_root or ""), disturb, lambda rows: None
        )
        rounds.run()
        vector = np.array(place.server("broadcast")[0])
    said = [event["text"] for event in events if event["event"] == "message"]
    assert [re.sub(r"(host-\d):c\d\.\.c\d", r"\1", text) for text in said] == expected.said
    missing = [event["missing"] for event in events if event["event"] == "round"]
    assert missing[3].keys() == {"c1", "c2"}
    assert re.fullmatch(r"host-0:c1\.\.c2, training c1, gave no answer", missing[3]["c1"])
    assert np.array_equal(vector, expected.vector)
    assert {r[:4]: r[4] for r in rounds.metrics.rows() if r[3] != "seconds"} == expected.rows

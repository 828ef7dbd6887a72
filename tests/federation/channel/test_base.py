"""A channel from outside the project: other numbers on the way, exact sums, state, refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.federation.channel.base import Cargo, Channel, NoSettings, Packed, Passage
from physfed_ray.federation.channel.registry import CHANNELS
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from tests.federation.channel.quantised import Quantised, QuantisedSettings
from tests.federation.test_rounds import (
    ASYNC,
    LATE,
    InterruptedRunError,
    Run,
    interrupt,
    of_speeds,
)
from tests.outside import install

MakeSpec = Callable[..., Spec]

EXPERIMENT = """
name: small
data: {source: {phantom: {patients: 4, slices: 1}}, image_size: 32, test_patients: 1}
clients: "paper-[123]"
method: {name: fedavg}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that registers the channels."""
    source = "from tests.federation.channel.quantised import Quantised\n"
    install(tmp_path / "site", monkeypatch, source, (CHANNELS, {"quantised": "Quantised"}))


def load(tmp_path: Path, *overrides: str) -> Experiment:
    file = tmp_path / "small.yaml"
    file.write_text(EXPERIMENT)
    return load_experiment(file, overrides)


def quantised(spec: Spec, **settings: Any) -> Spec:
    return replace(spec, channel=Quantised(QuantisedSettings(**settings)))


def test_an_experiment_names_a_channel_of_another_package(package: None, tmp_path: Path) -> None:
    plain = load(tmp_path)
    assert plain.federation.channel.make().name == "plain"
    assert load(tmp_path, "federation.channel=plain") == plain
    channel = load(tmp_path, "federation.channel={name: quantised, bits: 20}").federation.channel
    made = channel.make()
    assert made.name == "quantised"
    assert made.settings.model_dump() == {"clip": 1.0, "bits": 20}
    with pytest.raises(PhysFedError, match=r"federation\.channel\.clip: .*greater than 0"):
        load(tmp_path, "federation.channel={name: quantised, clip: 0}")
    with pytest.raises(PhysFedError, match=r"channel.name: unknown channel 'plane' .*'plain'"):
        load(tmp_path, "federation.channel=plane")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("fedmri", "method fedmri sends encoder, which the channel 'quantised' cannot carry"),
        ("fedkd", "method fedkd sends ranks"),
        ("fednova", "method fednova sends norm"),
        ("feddg", "method feddg sends arrays before the first round"),
        ("pooled", "method pooled trains on the data of all clients in one place"),
    ],
)
def test_what_it_cannot_carry_is_refused_before_the_run(
    package: None, tmp_path: Path, method: str, words: str
) -> None:
    assert load(tmp_path, f"method.name={method}").federation.channel.name == "plain"
    with pytest.raises(PhysFedError) as refusal:
        load(tmp_path, f"method.name={method}", "federation.channel=quantised")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_method_that_compresses_is_refused_by_default() -> None:
    class Noisy(Channel):
        name = "noisy"

    assert "would send in full" in str(Noisy(NoSettings()).refuses(Cargo("x", compresses=True)))
    assert Noisy(NoSettings()).refuses(Cargo("x", uploads=("a",), publishes=True)) is None


def test_bits_do_not_depend_on_the_hosts(make_spec: MakeSpec) -> None:
    spec = quantised(
        make_spec("scan_physfed", clients=7, unseen=0, settings={"weights": "samples"})
    )
    runs = [Run(spec, hosts, participation=0.8).go() for hosts in (1, 2, 4)]
    for run in runs[1:]:
        assert np.array_equal(run.vector, runs[0].vector)
        assert run.rows == runs[0].rows
    parts = {row[3] for row in runs[0].rows if row[2] == "train"}
    assert parts == {"loss", "steps"}  # the channel lets no other loss through


def test_it_is_the_plain_average_but_for_rounding(make_spec: MakeSpec) -> None:
    plain = make_spec("fedavg", clients=3, unseen=0, rounds=1, settings={"weights": "samples"})
    average = Run(plain).go().vector
    near = Run(quantised(plain, clip=1e6)).go().vector
    np.testing.assert_allclose(near, average, rtol=0, atol=2e-7)
    coarse = Run(quantised(plain, clip=1e6, bits=4)).go().vector
    assert np.abs(coarse - average).max() > 1e-3


def test_what_travels_are_integers_and_their_sum_is_exact(make_spec: MakeSpec) -> None:
    spec = quantised(make_spec("fedavg", clients=3, unseen=0), clip=1e-3)
    server = ParameterServer(spec)
    vector, extras = server.broadcast()
    start = vector.copy()
    assert extras.keys() == {"channel.clip"}
    alone = []
    for client in range(3):
        turn = ClientTurn(client, 0)
        order = Order(1, 1e-3, (client,), (turn,), (0,), True, participants=(0, 1, 2))
        (result,), pieces = Host(spec).train(order, start, extras)
        alone += list(pieces.values())
        assert result.losses.keys() == {"loss"}
    assert all(sent.dtype == np.int64 and sent.size == vector.size + 1 for sent in alone)
    assert all(np.linalg.norm(sent[:-1] / 2**24) == pytest.approx(1e-3, rel=1e-2) for sent in alone)
    turns = tuple(ClientTurn(client, 0) for client in range(3))
    _, pieces = Host(spec).train(Order(1, 1e-3, (0, 1, 2), turns, (0,), True), start, extras)
    total = sum(piece for piece in pieces.values() if piece is not None)
    assert np.array_equal(total, sum(alone))
    server.aggregate(1, [0, 1, 2], {}, [], True, pieces)
    expected = start + (total[:-1] / (3 * 2**24)).astype(np.float32)
    assert np.array_equal(server.broadcast()[0], expected)
    assert server.account() == {"clip": 1.25e-3}  # all three were too long
    assert float(server.broadcast()[1]["channel.clip"]) == 1.25e-3


def test_another_size_or_type_is_refused(make_spec: MakeSpec) -> None:
    server = ParameterServer(quantised(make_spec("fedavg", clients=3, unseen=0)))
    size = server.broadcast()[0].size
    for bad in (np.zeros(size, np.int64), np.zeros(size + 1, np.float32)):
        with pytest.raises(PhysFedError, match=r"'quantised' makes .* shared parameters"):
            server.aggregate(1, [0], {}, [1, 2], True, {(0, 0): bad})


@pytest.mark.parametrize("settings", [{"participation": 0.7}, LATE, ASYNC])
def test_the_state_survives_an_interruption(
    make_spec: MakeSpec, tmp_path: Path, settings: dict[str, Any]
) -> None:
    runs = []
    for name, stops in (("calm", ()), ("stopped", (2, 4))):
        spec = make_spec("fedavg", clients=5, unseen=0, rounds=5, run_root=tmp_path / name)
        spec = quantised(of_speeds(spec), clip=0.01)
        for stop in stops:
            with pytest.raises(InterruptedRunError):
                Run(spec, at=interrupt(stop), **settings).go()
        runs.append(Run(spec, 2, **settings).go())
    assert np.array_equal(runs[0].vector, runs[1].vector)
    assert runs[0].rows == runs[1].rows
    clips = [v for k, v in sorted(runs[0].rows.items()) if k[2:] == ("channel", "clip")]
    assert len(set(clips)) > 2
    last = load_file(tmp_path / "stopped" / "checkpoints" / "round-0005" / "channel.safetensors")
    assert float(last["clip"]) == clips[-1]


def test_its_bytes_are_in_the_metrics(make_spec: MakeSpec) -> None:
    run = Run(quantised(make_spec("fedper", clients=3, unseen=0))).go()
    size, told = run.vector.size, 8
    assert set(run.row("bytes_up").values()) == {3 * 8 * (size + 1)}
    assert set(run.row("bytes_down").values()) == {3 * (4 * size + told + 16 * 3)}


class Listening(Channel):
    """Remembers every passage."""

    name = "listening"
    heard: list[Passage]

    def outgoing(self, update: torch.Tensor, passage: Passage) -> torch.Tensor:
        """Note who passes."""
        self.heard.append(passage)
        return super().outgoing(update, passage)


def test_a_passage_says_who_is_asked_and_has_its_own_stream(make_spec: MakeSpec) -> None:
    spec = make_spec("fedavg", clients=5, unseen=0, rounds=2, settings={"weights": "samples"})
    channel = Listening(NoSettings())
    channel.heard = []
    heard = Run(replace(spec, channel=channel), 2, participation=0.6).go() and channel.heard
    assert len(heard) == 6
    for passage in heard:
        same = [other for other in heard if other.round == passage.round]
        assert passage.participants == tuple(sorted(other.client for other in same))
        assert passage.weight == spec.clients[passage.client].slices
        assert passage.id == spec.clients[passage.client].id
    drawn = {passage.generator("noise").integers(2**60) for passage in heard}
    assert len(drawn) == 6
    assert heard[0].generator("noise").integers(9**9) == heard[0].generator("noise").integers(9**9)


def test_losses_uploads_and_published_arrays_go_its_way(make_spec: MakeSpec) -> None:
    class Doubling(Channel):
        name = "doubling"

        def losses(self, values: Any, passage: Passage) -> dict[str, float]:
            return {"loss": 7.0}

        def uploads(self, arrays: Any, passage: Passage) -> dict[str, np.ndarray]:
            return {name: 2 * array for name, array in arrays.items()}

        def published(self, arrays: Any, passage: Passage) -> dict[str, np.ndarray]:
            assert passage.round == 0
            return {name: 2 * array for name, array in arrays.items()}

    order = Order(1, 1e-3, (0,), (ClientTurn(0, 0),), (0,))
    nova = make_spec("fednova", unseen=0)
    start = ParameterServer(nova).broadcast()[0]
    results = [
        Host(spec).train(order, start, {})[0][0]
        for spec in (nova, replace(nova, channel=Doubling(NoSettings())))
    ]
    assert results[1].losses == {"loss": 7.0}
    assert results[1].uploads["norm"] == 2 * results[0].uploads["norm"]
    dg = make_spec("feddg", unseen=0)
    plain, doubled = (
        Host(spec).publish([1])[0]["amplitudes"]
        for spec in (dg, replace(dg, channel=Doubling(NoSettings())))
    )
    assert np.array_equal(doubled, 2 * plain)


def test_an_upload_that_is_not_declared_is_named(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("fednova", unseen=0)
    monkeypatch.setattr(type(spec.method), "uploads", ())
    with pytest.raises(PhysFedError, match="sends 'norm' beside its update and declares nothing"):
        Run(spec).go()


def test_bytes_of_packed_numbers() -> None:
    assert Packed(3).nbytes == 12
    assert Packed(3, "int64").nbytes == 24

"""The server as a member that trains, beside the clients and in none of their sums."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from physfed_ray.data.store import concatenate, read_client_data, write_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.routes import why_untrained
from physfed_ray.federation.schedule import PlannedTurn, make_schedule
from physfed_ray.federation.serving import evaluate_all
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method
from physfed_ray.methods.fedavg import FedAvg
from physfed_ray.methods.fedper import FedPer
from physfed_ray.methods.given import Aggregation, ClientInfo, RoundInput, ServerInfo
from tests.federation.channel.quantised import Quantised, QuantisedSettings
from tests.federation.scripted import At, ScriptedRuntime, after, at, dies, sends_nothing
from tests.federation.test_recovery import assert_same
from tests.federation.test_rounds import (
    ASYNC,
    LATE,
    InterruptedRunError,
    Run,
    interrupt,
    of_speeds,
    private_states,
)
from tests.federation.test_vectors import Median

MakeSpec = Callable[..., Spec]


class Taught(FedPer):
    """FedPer whose server trains as well, and says the mean g of its images."""

    name = "taught"
    trains_on_server = True

    def begin(self, network: nn.Module, round_input: RoundInput) -> list[Tensor]:
        """Return where g is collected."""
        return []

    def loss(
        self, network: nn.Module, batch: Batch, state: list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Collect g."""
        state.append(batch.g)
        return super().loss(network, batch, state)

    def finish(
        self, network: nn.Module, round_input: RoundInput, state: list[Tensor], steps: int
    ) -> dict[str, np.ndarray]:
        """Send the mean g, where this is the server."""
        if round_input.client.role == "client":
            return {}
        return {"g": torch.cat(state).double().mean(0).numpy()}

    def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the mean, and what the server said, if it trained."""
        ids = [client.id for client in aggregation.clients]
        assert "server" not in ids
        assert list(aggregation.weights) == ids
        said = aggregation.uploads.get("server", {})
        return aggregation.mean, dict(said)


def with_server(spec: Spec, kind: type[Method] = Taught) -> Spec:
    """Give a federation a server with the images of two scanners, and a method that asks for it."""
    parts = [read_client_data(f.train) for f in spec.files[:2] if f.train is not None]
    data, path = concatenate(parts), Path(str(spec.files[0].train)).with_name("server.arrow")
    write_client_data(path, data)
    return replace(
        spec,
        method=kind(spec.method.settings, spec.method.task),
        server=ServerInfo(len(spec.clients), len(data)),
        server_file=path,
    )


@pytest.fixture
def make(make_spec: MakeSpec, tmp_path: Path) -> Callable[..., Spec]:
    """Return a maker of federations of four clients whose server trains."""

    def make(folder: str, **more: Any) -> Spec:
        chosen: dict[str, Any] = {"clients": 4, "unseen": 1, "rounds": 4, "evaluate_every": 2}
        return with_server(make_spec("fedper", run_root=tmp_path / folder, **chosen | more))

    return make


def without_server(rows: Mapping[tuple[Any, ...], float]) -> dict[tuple[Any, ...], float]:
    """Return the rows of clients and rounds, without the bytes of what the server broadcasts."""
    own = {key for key in rows if key[1:3] == ("server", "train") or key[3] == "bytes_down"}
    return {key: value for key, value in rows.items() if key not in own}


@pytest.mark.parametrize("hosts", [1, 5])
def test_clients_learn_as_if_there_were_no_server(
    make: Callable[..., Spec], make_spec: MakeSpec, hosts: int
) -> None:
    run = Run(make("with"), hosts).go()
    alone = Run(make_spec("fedper", clients=4, rounds=4, evaluate_every=2)).go()
    assert run.vector.tobytes() == alone.vector.tobytes()
    assert without_server(run.rows) == without_server(alone.rows)
    assert {key[0] for key in run.rows if key[1:] == ("server", "train", "loss")} == {1, 2, 3, 4}
    assert evaluate_all(run.rounds).rows == evaluate_all(alone.rounds).rows
    own = [name for name in private_states(run) if name.endswith("/server.safetensors")]
    assert own == ["checkpoints/round-0004/clients/server.safetensors"]


def test_what_the_server_says_comes_from_each_image_s_own_g(make: Callable[..., Spec]) -> None:
    spec = make("run", rounds=1)
    run = Run(spec).go()
    extras = run.runtime.server("broadcast")[1]
    g = read_client_data(Path(str(spec.server_file))).g
    assert len(np.unique(g, axis=0)) == 2
    np.testing.assert_allclose(extras["g"], g.astype(np.float64).mean(0))


@pytest.mark.parametrize(
    "settings", [{"participation": 0.6}, ASYNC, LATE | {"checkpoint_every": 2}],
    ids=["sync", "async", "late"],
)  # fmt: skip
def test_it_trains_in_every_round_on_the_newest_vector(
    make: Callable[..., Spec], settings: dict[str, Any]
) -> None:
    """Also resumed, on other hosts, and with hosts that are lost, to the same bits."""
    calm = Run(of_speeds(make("calm")), **settings).go()
    schedule = calm.rounds._schedule
    for number in range(1, 5):
        plan = schedule.plan(number)
        assert plan.server == PlannedTurn(4, number - 1)
        assert all(turn.client < 4 for turn in plan.turns)
    spec = of_speeds(make("stopped"))
    with pytest.raises(InterruptedRunError):
        Run(spec, at=interrupt(3), **settings).go()
    assert_same(Run(spec, 3, **settings).go(), calm)
    script = [at("train", 2, dies(2)), after("train", 4, dies(0, 2))]
    lost = Run(of_speeds(make("lost")), 3, make=scripted(*script), **settings)
    assert 4 in lost.runtime.assignment[2]
    lost.go()
    assert lost.said
    assert_same(lost, calm)


def scripted(*script: At) -> Callable[[Spec, int], ScriptedRuntime]:
    return partial(ScriptedRuntime, script=script)


def test_a_round_of_the_server_alone_leaves_the_shared_vector(make: Callable[..., Spec]) -> None:
    seen: dict[int, np.ndarray] = {}
    slow = of_speeds(make("run"), (0.3,) * 4)
    settings = {"deadline_steps": 2, "late": "merge"}
    run = Run(slow, at=lambda run, number: seen.update({number: run.vector}), **settings)
    before = run.vector
    run.go()
    assert run.row("participants")[1] == 0
    assert np.array_equal(seen[1], before)
    assert not np.array_equal(seen[4], before)
    assert "round 1: no late update arrives yet; nothing that is shared is changed" in run.said
    assert run.rounds.manifest.private_rounds["server"] == 4


def test_a_server_that_fails_is_missing_and_no_client_of_the_quorum(
    make: Callable[..., Spec],
) -> None:
    spec = make("run")
    script = [at("train", 2, sends_nothing(4, diverged=True))]
    run = Run(spec, 2, make=scripted(*script), quorum=1.0).go()
    event = next(e for e in run.events if e["event"] == "round" and e["round"] == 2)
    assert event["missing"] == {"server": "loss is nan"}
    assert event["participants"] == 4
    assert run.row("missing") == {1: 0, 2: 1, 3: 0, 4: 0}
    calm = Run(make("calm"), 2).go()
    assert run.vector.tobytes() == calm.vector.tobytes()


def test_too_few_clients_fail_a_round_though_the_server_answered(
    make: Callable[..., Spec],
) -> None:
    run = Run(make("run"), make=scripted(at("train", 1, sends_nothing(0, 1, 2, 3))))
    with pytest.raises(PhysFedError, match="round 1 has 0 of 4 clients"):
        run.go()


class TaughtMedian(Median):
    """The median of the clients' vectors, with a server that trains."""

    trains_on_server = True


def test_neither_single_vectors_nor_a_channel_see_the_server(make_spec: MakeSpec) -> None:
    spec = make_spec("fedavg", clients=3)
    one, other = with_server(spec, TaughtMedian), replace(spec, method=Median(
        spec.method.settings, spec.method.task
    ))  # fmt: skip
    assert Run(one, 2).go().vector.tobytes() == Run(other, 2).go().vector.tobytes()
    channel = Quantised(QuantisedSettings(clip=0.01))
    one = replace(with_server(make_spec("fedper")), channel=channel)
    other = replace(make_spec("fedper"), channel=channel)
    assert Run(one, 2).go().vector.tobytes() == Run(other, 2).go().vector.tobytes()


def test_a_run_that_began_without_the_server_goes_on(make: Callable[..., Spec]) -> None:
    spec = make("run", rounds=2)
    Run(replace(spec, server=None, server_file=None)).go()
    run = Run(make("run", rounds=4)).go()
    assert run.done == [3, 4]
    assert run.rounds.manifest.private_rounds["server"] == 4


class Weightless(FedAvg):
    """Gives nobody any weight."""

    def weight(self, client: ClientInfo) -> float:
        """Return 0."""
        return 0.0


def test_without_any_weight_the_vector_stays(make_spec: MakeSpec) -> None:
    spec = make_spec("fedavg")
    run = Run(replace(spec, method=Weightless(spec.method.settings, spec.method.task)))
    before = run.vector
    assert np.array_equal(run.go().vector, before)


def unlabelled(spec: Spec, *clients: int) -> Spec:
    """Take the full dose of clients' training images away."""
    infos, files = list(spec.clients), list(spec.files)
    for client in clients:
        path = Path(str(files[client].train))
        data = read_client_data(path)
        bare = path.with_name(f"bare-{client}.arrow")
        write_client_data(bare, replace(data, full=np.full_like(data.full, np.nan)))
        infos[client] = replace(infos[client], labels=False)
        files[client] = replace(files[client], train=bare)
    return replace(spec, clients=tuple(infos), files=tuple(files))


@pytest.mark.parametrize("settings", [{}, {"participation": 0.6}, ASYNC | {"buffer": 1}])
def test_who_has_no_full_dose_is_tested_and_never_trains(
    make_spec: MakeSpec, settings: dict[str, Any]
) -> None:
    spec = unlabelled(make_spec("fedavg", clients=4, rounds=6, evaluate_every=6), 1)
    run = Run(spec, **settings).go()
    assert np.isfinite(run.vector).all()
    trained = {key[1] for key in run.rows if key[2:] == ("train", "loss")}
    assert trained == {"c1", "c3", "c4"}
    assert not any(event.get("missing") for event in run.events)
    tested = {row[1] for row in evaluate_all(run.rounds).rows if row[2] == "test"}
    assert tested == {"c1", "c2", "c3", "c4"}


def test_pooled_data_leave_them_out(make_spec: MakeSpec) -> None:
    spec = unlabelled(make_spec("pooled", rounds=2), 0)
    assert spec.trained_on(0) == tuple(files.train for files in spec.files[1:])
    steps = make_schedule(spec, Run(spec).rounds._settings)._steps
    assert steps == [spec.training.steps_per_round(sum(c.slices for c in spec.clients[1:]))]
    assert np.isfinite(Run(spec).go().vector).all()


class NeedsNone(FedAvg):
    """Trains towards the input, so that it needs no full dose."""

    unlabelled = True

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the error against the input where there is no full dose."""
        known = batch if batch.full.isfinite().all() else replace(batch, full=batch.low)
        return super().loss(network, known, state)


def test_a_method_that_needs_none_trains_them(make_spec: MakeSpec) -> None:
    spec = unlabelled(make_spec("fedavg"), 1)
    run = Run(replace(spec, method=NeedsNone(spec.method.settings, spec.method.task))).go()
    assert run.row("participants") == {1: 3, 2: 3, 3: 3}
    assert np.isfinite(run.vector).all()


@pytest.mark.parametrize(
    ("method", "refused"),
    [("fedavg", False), ("hyperfed", True), ("fedper", True), ("local", True), ("fedkd", False),
     ("scan_physfed", True), ("pooled", False)],
)  # fmt: skip
def test_private_parts_that_nobody_can_train_are_refused(
    make_spec: MakeSpec, method: str, refused: bool
) -> None:
    made = make_spec(method).method
    reason = why_untrained(made, ["c2", "c3"])
    assert (reason is not None) == refused
    words = f"c2, c3: false, so that nobody can train what method {method} keeps private"
    assert not refused or words in str(reason)
    assert why_untrained(made, []) is None


def test_a_run_without_validation_ends_untested(make_spec: MakeSpec) -> None:
    spec = make_spec("fedavg", rounds=1)
    bare = replace(spec, files=tuple(replace(f, validation=None) for f in spec.files))
    assert evaluate_all(Run(bare).go().rounds, tested=False).rows == []

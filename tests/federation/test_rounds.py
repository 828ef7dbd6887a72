"""Rounds: what is committed when, late updates, interruptions, rounds without clients."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Federation
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.spec import Spec
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.inline import InlineRuntime

MakeSpec = Callable[..., Spec]
SPEEDS = (1.0, 0.5, 0.3, 2.0, 1.0)
LATE = {"deadline_steps": 2, "late": "merge", "participation": 0.9}
ASYNC = {"schedule": "async", "buffer": 2, "participation": 0.8}


class InterruptedRunError(Exception):
    """Stands for a driver that dies."""


def of_speeds(spec: Spec, speeds: tuple[float, ...] = SPEEDS) -> Spec:
    """Give the clients of a federation their simulated speeds."""
    pairs = zip(spec.clients, speeds, strict=False)
    return replace(spec, clients=tuple(replace(client, speed=speed) for client, speed in pairs))


class Run:
    """A federation in this process.

    Args:
        spec: The federation.
        hosts: Number of hosts.
        at: What to do at the end of a round, before it is committed.
        make: Makes the runtime.
        settings: Keys under ``federation``.
    """

    def __init__(
        self,
        spec: Spec,
        hosts: int = 1,
        at: Callable[["Run", int], None] = lambda run, number: None,
        make: Callable[[Spec, int], InlineRuntime] = InlineRuntime,
        **settings: Any,
    ) -> None:
        self.runtime = make(spec, hosts)
        self.events: list[Event] = []
        self._at = at
        directory = None if spec.run_root is None else RunDirectory(spec.run_root)
        self.rounds = Rounds(
            spec, Federation(**settings), self.runtime, directory, self._event, lambda rows: None
        )
        self.rounds.resume()

    def _event(self, event: Event) -> None:
        self.events.append(event)
        if event["event"] == "round":
            self._at(self, event["round"])

    def go(self) -> "Run":
        """Run all rounds that are left."""
        self.rounds.run()
        return self

    @property
    def done(self) -> list[int]:
        """Rounds that were run here."""
        return [event["round"] for event in self.events if event["event"] == "round"]

    @property
    def said(self) -> list[str]:
        """Messages for the user."""
        return [event["text"] for event in self.events if event["event"] == "message"]

    @property
    def vector(self) -> np.ndarray:
        """The shared parameters."""
        return np.array(self.runtime.server("broadcast")[0])

    @property
    def rows(self) -> dict[tuple[Any, ...], float]:
        """The metrics that do not depend on the clock on the wall."""
        return {r[:4]: r[4] for r in self.rounds.metrics.rows() if r[3] != "seconds"}

    def row(self, metric: str) -> dict[int, float]:
        """Return a metric of the server, by round."""
        return {k[0]: v for k, v in self.rows.items() if k[1] == "server" and k[3] == metric}


def interrupt(*rounds: int) -> Callable[[Run, int], None]:
    """Return what ends a run in one of these rounds, before it is committed."""

    def stop(run: Run, number: int) -> None:
        if number in rounds:
            raise InterruptedRunError

    return stop


def manifests(root: str | None) -> list[int]:
    found = Path(root or "").glob("checkpoints/*/state.json")
    return sorted(int(path.parent.name.removeprefix("round-")) for path in found)


def test_only_due_rounds_and_the_last_are_committed(make_spec: MakeSpec, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"checkpoint_every": 3, "keep_checkpoints": 9, "participation": 0.6}
    calm = Run(make_spec("fedper", run_root=tmp_path / "calm", rounds=7), **settings).go()
    assert manifests(calm.rounds.spec.run_root) == [3, 6, 7]
    spec = make_spec("fedper", run_root=tmp_path / "stopped", rounds=7)
    with pytest.raises(InterruptedRunError):
        Run(spec, at=interrupt(5), **settings).go()
    assert manifests(spec.run_root) == [3]
    assert not list((tmp_path / "stopped").glob("checkpoints/round-000[45]"))  # nor any state
    rest = Run(spec, 2, **settings).go()
    assert rest.done == [4, 5, 6, 7]
    assert manifests(spec.run_root) == [3, 6, 7]
    assert np.array_equal(rest.vector, calm.vector)
    assert rest.rows == calm.rows
    for name in ("private_rounds", "bases"):
        assert getattr(rest.rounds.manifest, name) == getattr(calm.rounds.manifest, name)


def private_states(run: Run) -> dict[str, bytes]:
    """Return the files of the private states that the last manifest names."""
    root = Path(run.rounds.spec.run_root or "")
    named = run.rounds.manifest.files()
    return {name: (root / name).read_bytes() for name in named if "/clients/" in name
            and not name.startswith("checkpoints/round-0000")}  # fmt: skip


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("settings", [LATE, ASYNC], ids=["late", "async"])
def test_stale_updates_give_the_same_bits_after_interruptions(
    make_spec: MakeSpec, tmp_path: Path, settings: dict[str, Any], every: int
) -> None:
    """Also on other numbers of hosts; the bases of updates in flight come from disk."""
    settings = settings | {"checkpoint_every": every}
    make = {"clients": 5, "rounds": 8, "evaluate_every": 4}
    calm = of_speeds(make_spec("scan_physfed", run_root=tmp_path / "calm", **make))
    expected = Run(calm, **settings).go()
    assert max(expected.row("staleness").values()) >= 0.5
    spec = of_speeds(make_spec("scan_physfed", run_root=tmp_path / "stopped", **make))
    with pytest.raises(InterruptedRunError):
        Run(spec, 3, at=interrupt(2), **settings).go()
    with pytest.raises(InterruptedRunError):
        Run(spec, 2, at=interrupt(6), **settings).go()
    rest = Run(spec, 5, **settings)
    assert rest.rounds.manifest.round == (5 if every == 1 else 3)
    assert rest.rounds.manifest.bases
    rest.go()
    assert np.array_equal(rest.vector, expected.vector)
    assert rest.rows == expected.rows
    assert private_states(rest) == private_states(expected)
    assert len(private_states(rest)) == 5


@pytest.mark.parametrize("settings", [LATE, ASYNC], ids=["late", "async"])
def test_without_a_run_directory_the_bases_stay_in_memory(
    make_spec: MakeSpec, tmp_path: Path, settings: dict[str, Any]
) -> None:
    vectors = [
        Run(of_speeds(make_spec("fedavg", clients=5, rounds=7, run_root=root)), **settings).go()
        for root in (tmp_path / "run", None)
    ]
    assert np.array_equal(vectors[0].vector, vectors[1].vector)
    assert set(vectors[1].rounds._vectors) <= {*vectors[1].rounds.manifest.bases, 7}


def test_asynchronous_rounds_of_equal_clients_are_nearly_fedavg(make_spec: MakeSpec) -> None:
    """The same in exact arithmetic: differences are rounded otherwise."""
    spec = make_spec("fedavg", clients=3, rounds=3)
    alike = Run(spec).go(), Run(spec, schedule="async", buffer=3).go()
    assert set(alike[1].row("staleness").values()) == {0.0}
    np.testing.assert_allclose(alike[1].vector, alike[0].vector, rtol=1e-4, atol=1e-6)


def test_a_round_in_which_nobody_can_be_reached_changes_nothing(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    hours = tmp_path / "hours.csv"
    hours.write_text(
        "client,from_round,to_round\n"
        + "".join(f"c{i},{first},{last}\n" for i in (1, 2) for first, last in ((1, 1), (3, 3)))
    )
    spec = make_spec("fedper", clients=2, rounds=3, run_root=tmp_path / "run")
    kept: dict[int, np.ndarray] = {}
    run = Run(
        spec,
        at=lambda run, number: kept.update({number: run.vector}),
        availability={"csv": hours},
        keep_checkpoints=9,
    ).go()
    assert run.said == ["round 2: no client can be reached; nothing is changed"]
    assert np.array_equal(kept[1], kept[2])
    assert not np.array_equal(kept[2], kept[3])
    assert manifests(spec.run_root) == [1, 2, 3]
    assert run.row("participants") == {1: 2, 2: 0, 3: 2}
    assert 2 not in run.row("staleness")


def test_a_round_before_any_late_update_says_so(make_spec: MakeSpec) -> None:
    spec = of_speeds(make_spec("fedavg", clients=2, rounds=2), (0.5, 0.5))
    run = Run(spec, deadline_steps=2, late="merge").go()
    assert run.said == ["round 1: no late update arrives yet; nothing is changed"]
    assert run.row("participants") == {1: 0, 2: 2}
    assert run.row("staleness") == {2: 1.0}


def test_clients_dropped_for_being_late_count_against_the_quorum(make_spec: MakeSpec) -> None:
    spec = of_speeds(make_spec("fedavg", clients=3, rounds=2), (1.0, 0.5, 1.0))
    with pytest.raises(PhysFedError) as refusal:
        Run(spec, deadline_steps=2).go()
    assert str(refusal.value).startswith(
        "round 1 has 2 of 3 clients, fewer than the quorum of 3 (c2: late: its 2 steps at speed "
        "0.5 take 4, the deadline is 2)"
    )
    assert "--resume, or lower federation.quorum" in str(refusal.value)
    run = Run(spec, deadline_steps=2, quorum=0.66).go()
    assert [list(e["missing"]) for e in run.events if e["event"] == "round"] == [["c2"], ["c2"]]


def test_clients_move_to_the_idlest_hosts_and_the_bits_stay(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    def lose(run: Run, number: int) -> None:
        if number in (2, 4):
            run.runtime.hand_over(number // 2)

    make = {"clients": 7, "rounds": 5}
    calm = Run(make_spec("fedper", run_root=tmp_path / "calm", **make)).go()
    moved = Run(make_spec("fedper", run_root=tmp_path / "moved", **make), 3, lose)
    before = [list(clients) for clients in moved.runtime.assignment]
    moved.go()
    after = [list(clients) for clients in moved.runtime.assignment]
    assert moved.runtime.hosts == [0]
    assert after == [[0, 1, 2, 3, 4, 5, 6], [], []]
    assert sorted(c for clients in before for c in clients) == after[0]
    assert np.array_equal(moved.vector, calm.vector)
    assert moved.rows == calm.rows
    with pytest.raises(PhysFedError, match=r"all hosts are lost .* --resume"):
        moved.runtime.hand_over(0)


def test_the_clients_of_a_lost_host_are_dealt_by_load(make_spec: MakeSpec) -> None:
    runtime = InlineRuntime(make_spec("fedavg", clients=7), 3)
    runtime.hand_over(1)
    slices = [client.slices for client in runtime.spec.clients]
    loads = [sum(slices[c] for c in runtime.assignment[host]) for host in runtime.hosts]
    assert max(loads) - min(loads) <= max(slices)
    assert {c: h for h in runtime.hosts for c in runtime.assignment[h]} == runtime.host_of
    assert all(list(clients) == sorted(clients) for clients in runtime.assignment)


@pytest.mark.parametrize("persistence", ["persist_private", "persist_all", "fresh"])
def test_states_on_disk_give_the_bits_of_states_in_memory(
    make_spec: MakeSpec, tmp_path: Path, persistence: str
) -> None:
    results = []
    for name, megabytes in (("disk", 0.0), ("memory", 100.0)):
        spec = make_spec("scan_physfed", rounds=3, run_root=tmp_path / name,
                         optimizer_state=persistence)  # fmt: skip
        spec = replace(spec, private_memory_mb=megabytes)
        run = Run(spec, participation=0.6, checkpoint_every=2).go()
        held = run.runtime._hosts[0].network.states
        assert bool(held._held_bytes) == bool(megabytes)
        results.append((run.vector.tobytes(), run.rows, private_states(run)))
    assert results[0] == results[1]

"""Recovery: whatever is lost whenever, a run ends as an undisturbed one, bit for bit."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from physfed_ray.errors import DivergedError, PhysFedError
from physfed_ray.federation.rounds import RETRIES
from physfed_ray.federation.serving import FinalResults, evaluate_all
from physfed_ray.federation.spec import Spec
from physfed_ray.rundir.run_directory import RunDirectory
from tests.federation.scripted import (
    At,
    ScriptedRuntime,
    after,
    at,
    dies,
    forgotten,
    is_slow,
    no_machine,
    sends_nothing,
    server_dies,
)
from tests.federation.test_rounds import ASYNC, LATE, Run, of_speeds, private_states

MakeSpec = Callable[..., Spec]
HOSTS = 3
ROUNDS = 5
SERVER_DIED = "the process of the parameter server died"
END = {"clients": 5, "rounds": ROUNDS, "evaluate_every": 2, "batch_size": 4}
SETTINGS: dict[str, dict[str, Any]] = {
    "each round saved": {"participation": 0.6},
    "asynchronous": ASYNC | {"checkpoint_every": 3},
    "late updates": LATE | {"checkpoint_every": 2},
}
SCRIPTS: dict[str, list[At]] = {
    "hosts in training": [at("train", 2, dies(0)), at("train", 4, dies(1, 2))],
    "a host that has trained and saved": [after("train", 3, dies(0))],
    "all hosts": [after("train", 2, dies(0, 1, 2))],
    "a host twice in a row": [at("train", 3, dies(1)), after("train", 4, dies(1))],
    "the server in training": [at("train", 3, server_dies)],
    "the server before it adds up": [at("combine", 2, server_dies)],
    "the server that has added up": [after("server.aggregate", 3, server_dies)],
    "the server at once": [at("server.sizes", 1, server_dies)],
    "the server while it publishes": [at("publish", 2, server_dies)],
    "the server that has published": [after("publish", 3, server_dies)],
    "the server while it saves": [at("server.save", 1, server_dies)],
    "the server that has saved": [after("server.save", 1, server_dies)],
    "the server while codes are looked at": [at("server.inspect_codes", 1, server_dies)],
    "the server and all hosts": [at("train", 4, dies(0, 1, 2), server_dies)],
    "the published vector": [at("train", 3, forgotten("vector"))],
    "the sums of a round": [at("server.aggregate", 2, forgotten("pieces"))],
    "a host in an evaluation": [at("start.seen.evaluate", 4, dies(0))],
    "a host that has evaluated": [after("start.seen.evaluate", 6, dies(2))],
    "what was evaluated": [after("start.seen.evaluate", 3, forgotten("seen.evaluate"))],
    "the vector while it is evaluated": [at("start.seen.evaluate", 2, forgotten("vector"))],
    "a new host that dies as it starts": [at("train", 3, dies(1)), after("restart", 1, dies(1))],
    "the server while it is repaired": [
        at("train", 3, server_dies),
        after("repair", 1, server_dies),
        at("server.restore", 2, server_dies),
    ],
    "a host for good": [at("train", 3, dies(1), no_machine(1))],
    "two hosts for good, one after the other": [
        at("train", 2, dies(0), no_machine(0)),
        at("train", 4, dies(2), no_machine(2)),
    ],
    "two hosts for good, and the server": [
        at("train", 3, dies(0, 2), no_machine(0, 2), server_dies),
    ],
}  # fmt: skip


def scripted(spec: Spec, *script: At, hosts: int = HOSTS, **settings: Any) -> Run:
    """Return a federation that loses what a script says."""
    return Run(spec, hosts, make=partial(ScriptedRuntime, script=script), **settings)


def last_checkpoint(run: Run) -> dict[str, bytes]:
    """Return the files of the server that the last manifest names, and of private states."""
    root, number = Path(run.rounds.spec.run_root or ""), run.rounds.manifest.round
    files = (root / "checkpoints" / f"round-{number:04d}").glob("*.safetensors")
    return {path.name: path.read_bytes() for path in files} | private_states(run)


def assert_same(run: Run, expected: Run) -> None:
    """Assert that two runs ended alike: parameters, private states, files and metrics."""
    assert run.rounds.manifest == expected.rounds.manifest
    assert run.vector.tobytes() == expected.vector.tobytes()
    assert last_checkpoint(run) == last_checkpoint(expected) != {}
    assert run.rows == expected.rows
    written = RunDirectory(run.rounds.spec.run_root or "").read_table("metrics.parquet")
    assert {r[:4]: r[4] for r in written.rows() if r[3] != "seconds"} == run.rows


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Run]:
    """Runs to which nothing happened, by what identifies them; filled by ``calm``."""
    return {}


@pytest.fixture
def make(make_spec: MakeSpec, tmp_path: Path) -> Callable[..., Spec]:
    """Return a maker of the federation of these tests, with a run directory of its own."""

    def make(name: str, method: str = "scan_physfed", **more: Any) -> Spec:
        return of_speeds(make_spec(method, run_root=tmp_path / name, **END | more))

    return make


@pytest.fixture
def calm(
    make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory, undisturbed: dict[str, Run]
) -> Callable[..., Run]:
    """Return a maker of undisturbed runs, each made once."""

    def calm(method: str = "scan_physfed", noise: str = "fixed", **settings: Any) -> Run:
        key = f"{method} {noise} {settings}"
        if key not in undisturbed:
            root = tmp_path_factory.mktemp("calm")
            spec = of_speeds(make_spec(method, run_root=root, noise=noise, **END))
            undisturbed[key] = Run(spec, **settings).go()
        return undisturbed[key]

    return calm


@pytest.mark.parametrize(
    ("lost", "settings"),
    [(lost, name) for i, lost in enumerate(SCRIPTS) for name in list(SETTINGS)[: 3 - i % 2]],
)
def test_a_run_ends_as_if_nothing_had_been_lost(
    make: Callable[..., Spec], calm: Callable[..., Run], lost: str, settings: str
) -> None:
    run = scripted(make("run"), *SCRIPTS[lost], **SETTINGS[settings]).go()
    assert run.runtime.all_happened(), "the script was not played to its end"
    assert run.said
    assert_same(run, calm(**SETTINGS[settings]))


def test_the_user_is_told_what_was_lost_and_where_the_run_goes_on(
    make: Callable[..., Spec], calm: Callable[..., Run]
) -> None:
    run = scripted(
        make("run"),
        at("train", 2, dies(1)),
        at("server.aggregate", 3, server_dies),
        at("train", 5, forgotten("vector")),
        after("start.seen.evaluate", 6, dies(2)),
        at("train", 7, dies(0), no_machine(0)),
    ).go()
    assert run.said == [
        "round 2: the process of host-1 died; replaced, its clients train again",
        f"{SERVER_DIED}; replaced, going on after round 2",
        "host-0 lost a value that it needed (ObjectLostError); replaced, going on after round 2",
        "no machine took the place of host-0: its clients moved to other hosts",
        "round 4: the process of host-0 died; replaced, its clients train again",
        "the process of a host died; replaced, going on after round 3",
    ]
    assert_same(run, calm())


def test_states_that_no_checkpoint_has_send_the_run_back_to_the_last_one(
    make: Callable[..., Spec], calm: Callable[..., Run]
) -> None:
    run = scripted(make("run"), at("train", 3, dies(1)), at("train", 6, dies(1)),
                   checkpoint_every=2).go()  # fmt: skip
    assert run.done == [1, 2, 3, 4, 5]
    assert run.said == [f"round {n}: the process of host-1 died; replaced, its clients train again"
                        for n in (3, 5)]  # fmt: skip
    run = scripted(make("later"), at("train", 4, dies(1)), checkpoint_every=2).go()
    assert run.done == [1, 2, 3, 3, 4, 5]
    assert run.said == ["the process of host-1 died; replaced, going on after round 2"]
    assert_same(run, calm(checkpoint_every=2))


@pytest.mark.parametrize("line", [at, after], ids=["before", "after"])
def test_a_host_that_dies_while_older_states_are_saved(
    make: Callable[..., Spec], calm: Callable[..., Run], line: Callable[..., At]
) -> None:
    """They are of clients that trained since the last checkpoint, but not in the last round."""
    settings = {"participation": 0.4, "checkpoint_every": 3}
    run = scripted(make("run"), line("start.save", 1, dies(0, 1, 2)), **settings).go()
    assert run.runtime.all_happened()
    assert run.said == ["the process of a host died; replaced, going on after round 0"]
    assert_same(run, calm(**settings))


@pytest.mark.parametrize("call", ["recall", "server.save_base"])
@pytest.mark.parametrize("line", [at, after], ids=["before", "after"])
def test_the_server_dies_over_the_vectors_of_late_updates(
    make: Callable[..., Spec], calm: Callable[..., Run], call: str, line: Callable[..., At]
) -> None:
    """Going back needs them from disk, so the run is made to go back first."""
    settings = ASYNC | {"checkpoint_every": 3}
    script = [at("train", 4, server_dies), line(call, 1, server_dies)]
    run = scripted(make("run"), *script, **settings).go()
    assert run.runtime.all_happened()
    assert run.runtime.calls[call] > 1
    assert_same(run, calm(**settings))


PUBLISHING = [
    at("start.publish", 2, dies(1)),
    after("start.publish", 3, dies(2)),
    at("server.collect", 1, server_dies),
    after("server.collect", 1, server_dies),
    at("train", 1, server_dies),
    at("train", 4, server_dies),
]


@pytest.mark.parametrize("lost", PUBLISHING, ids=lambda at: f"{at.call}-{at.number}-{at.after}")
def test_what_clients_publish_before_the_first_round_is_there_again(
    make: Callable[..., Spec], calm: Callable[..., Run], lost: At
) -> None:
    run = scripted(make("run", "feddg"), lost).go()
    assert run.runtime.all_happened()
    assert_same(run, calm("feddg"))


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_round_that_is_repeated_has_the_same_fresh_noise(
    make: Callable[..., Spec], calm: Callable[..., Run], settings: str
) -> None:
    script = [
        at("train", 2, dies(0, 1, 2)),
        after("train", 4, dies(0)),
        at("combine", 4, server_dies),
    ]
    run = scripted(make("run", noise="fresh"), *script, **SETTINGS[settings]).go()
    assert run.runtime.all_happened()
    assert_same(run, calm(noise="fresh", **SETTINGS[settings]))


def final(run: Run) -> FinalResults:
    return run.rounds.surviving(lambda: evaluate_all(run.rounds))


@pytest.mark.parametrize("lost", [
    [at("start.seen.evaluate", 14, dies(0))],
    [at("server.codebook", 1, server_dies)],
    [after("server.route", 1, server_dies)],
    [at("start.unseen.features", 1, dies(0)), at("start.unseen.features", 2, dies(1))],
    [after("start.unseen.features", 1, forgotten("unseen.features"))],
    [at("start.unseen.decode", 1, dies(0, 1, 2))],
    [at("start.unseen.serve", 2, dies(1), no_machine(1))],
    [after("start.unseen.score", 3, dies(0)), at("start.unseen.score", 5, dies(0))],
], ids=lambda script: " ".join(line.call for line in script))  # fmt: skip
def test_the_last_evaluation_is_repeated(
    make: Callable[..., Spec], calm: Callable[..., Run], lost: list[At]
) -> None:
    expected = final(calm())
    run = scripted(make("run"), *lost).go()
    found = final(run)
    assert run.runtime.all_happened()
    assert run.said
    assert found.rows == expected.rows
    assert found.slices == expected.slices
    assert {n: i.tobytes() for n, i in found.examples.items()} == {
        n: i.tobytes() for n, i in expected.examples.items()
    }
    assert found.nearest == expected.nearest
    assert [r.client for r in found.routes.values()] == [r.client for r in expected.routes.values()]


def test_slow_hosts_are_replaced_and_their_clients_left_out(make: Callable[..., Spec]) -> None:
    """As if those clients had sent nothing; a late death is no reason to wait any longer."""
    slow = scripted(make("slow"), at("train", 2, is_slow(1)), quorum=0.5).go()
    left = scripted(make("left"), at("train", 2, sends_nothing(2, 3)), quorum=0.5).go()
    missing = [e["missing"] for e in slow.events if e["event"] == "round"]
    assert missing[1] == dict.fromkeys(["c3", "c4"], "host-1 gave no answer")
    assert not any(missing[:1] + missing[2:])
    assert slow.said == left.said == []
    assert_same(slow, left)


def test_slow_hosts_with_unsaved_states_send_the_run_back(
    make: Callable[..., Spec], calm: Callable[..., Run]
) -> None:
    run = scripted(make("run"), at("train", 3, is_slow(1)), checkpoint_every=5, quorum=0.5).go()
    assert run.said == ["host-1 gave no answer; replaced, going on after round 0"]
    assert_same(run, calm(checkpoint_every=5))


def test_a_host_that_dies_in_every_attempt_at_a_round_is_given_up(
    make: Callable[..., Spec],
) -> None:
    script = [at("train", 2 + attempt, dies(1)) for attempt in range(1 + RETRIES)]
    run = scripted(make("run"), *script, quorum=0.5).go()
    assert run.runtime.all_happened()
    again = "round 2: the process of host-1 died; replaced, its clients train again"
    assert run.said == [again] * RETRIES
    missing = [e["missing"] for e in run.events if e["event"] == "round"]
    assert missing[1] == dict.fromkeys(["c3", "c4"], "the process of host-1 died")
    left = scripted(make("left"), at("train", 2, sends_nothing(2, 3)), quorum=0.5).go()
    assert_same(run, left)
    strict = scripted(make("strict"), *script)
    with pytest.raises(PhysFedError, match=r"^round 2 has 3 of 5 clients, fewer .* quorum of 5 "
                       r"\(c3: the process of host-1 died; c4: the process"):  # fmt: skip
        strict.go()


def test_below_the_quorum_nothing_is_kept_and_a_resumed_run_is_whole(
    make: Callable[..., Spec], calm: Callable[..., Run]
) -> None:
    spec = make("run", rounds=ROUNDS)
    for diverged, kind in ((False, PhysFedError), (True, DivergedError)):
        with pytest.raises(PhysFedError) as refused:
            scripted(spec, at("train", 3, sends_nothing(*range(5), diverged=diverged))).go()
        assert type(refused.value) is kind
        spec = replace(spec, run_root=str(Path(spec.run_root or "").with_name(f"{diverged}")))
    assert str(refused.value) == (
        "round 3 has 0 of 5 clients, fewer than the quorum of 5 (c1: loss is nan; c2: loss is nan; "
        "c3: loss is nan; c4: loss is nan; and 1 more); nothing of it was kept: mend the cause and "
        "run again with --resume, or lower federation.quorum"
    )
    resumed = Run(make("run"), 2).go()
    assert resumed.done == [3, 4, 5]
    assert_same(resumed, calm())


def test_losses_without_end_stop_the_run_and_a_resumed_one_is_whole(
    make: Callable[..., Spec], calm: Callable[..., Run]
) -> None:
    script = [at("server.aggregate", 3 + n, server_dies) for n in range(1 + RETRIES)]
    run = scripted(make("run"), *script)
    with pytest.raises(PhysFedError) as stopped:
        run.go()
    assert str(stopped.value) == (
        f"the process of the parameter server died, {1 + RETRIES} times since the last completed "
        "round: look into its cause (memory, disk, a machine that goes away), and run again with "
        "--resume"
    )
    assert len(run.said) == RETRIES
    assert_same(Run(make("run")).go(), calm())


def test_losses_are_counted_anew_after_each_checkpoint(
    make: Callable[..., Spec], calm: Callable[..., Run]
) -> None:
    often = [at("server.aggregate", first + n, server_dies)
             for first in (2, 2 + 1 + RETRIES) for n in range(RETRIES)]  # fmt: skip
    run = scripted(make("run"), *often).go()
    assert len(run.said) == 2 * RETRIES
    assert_same(run, calm())


def test_without_any_host_left_the_run_stops_and_a_resumed_one_is_whole(
    make: Callable[..., Spec], calm: Callable[..., Run]
) -> None:
    run = scripted(make("run"), at("train", 3, dies(0, 1, 2), no_machine(0, 1, 2)))
    with pytest.raises(PhysFedError, match=r"^all hosts are lost and no machine .* --resume$"):
        run.go()
    assert_same(Run(make("run"), 2).go(), calm())


def test_a_host_that_is_gone_when_a_run_resumes(
    make: Callable[..., Spec], calm: Callable[..., Run]
) -> None:
    scripted(make("run", rounds=2)).go()
    run = scripted(make("run"))
    run.runtime.server_dead = True
    run.rounds.surviving(run.rounds.resume)
    assert run.said == [
        "the process of the parameter server died; replaced, going on after round 2"
    ]
    assert_same(run.go(), calm())


def test_without_a_run_directory_only_what_needs_none_is_survived(make_spec: MakeSpec) -> None:
    expected = Run(make_spec("fedavg", **END)).go()
    run = scripted(make_spec("fedavg", **END), at("train", 3, dies(1))).go()
    assert run.said == ["round 3: the process of host-1 died; replaced, its clients train again"]
    assert run.vector.tobytes() == expected.vector.tobytes()
    assert run.rows == expected.rows
    private = scripted(make_spec("fedper", **END), at("train", 1, dies(1)))
    assert private.go().said  # nobody has a state yet
    for method, line in (("fedavg", at("train", 3, server_dies)),
                         ("fedper", at("train", 3, dies(1)))):  # fmt: skip
        with pytest.raises(PhysFedError, match=r"died, 1 times since the last completed round"):
            scripted(make_spec(method, **END), line).go()


def test_the_script_notices_what_it_did_not_play(make: Callable[..., Spec]) -> None:
    with closing(scripted(make("run"), at("train", 99, server_dies)).go().runtime) as runtime:
        assert not runtime.all_happened()

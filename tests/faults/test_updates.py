"""A client sends nonsense, or nothing at all."""

from pathlib import Path

from tests.faults.faulty import OTHER_VERSION
from tests.faults.nodes import Nodes
from tests.faults.runs import Faults, Run, State, state_of


def test_a_client_without_a_good_update_stops_the_run_and_a_resumed_one_is_whole(
    cluster: Nodes, undisturbed: State, tmp_path: Path
) -> None:
    faults = Faults(tmp_path / "faults")
    faults.plan("c2", 5, "nan")
    cluster.add(cpus=2)
    sentence = Run(tmp_path / "run", "--address", cluster.address, *faults.arguments).fails()
    assert "round 5 has 3 of 4 clients, fewer than the quorum of 4" in sentence
    assert "c2: loss is nan in round 5, batch 2" in sentence
    run = Run(tmp_path / "run", "--runtime", "inline", "--resume", *faults.arguments)
    run.succeeds()
    assert state_of(run.out) == undisturbed


def test_the_others_go_on_without_clients_that_hang_or_send_nonsense(
    cluster: Nodes, tmp_path: Path
) -> None:
    faults = Faults(tmp_path / "faults")
    faults.plan("c1", 2, "nan")
    faults.plan("c3", 4, "hang")
    cluster.add(cpus=4)
    settings = ["--set", "federation.quorum=0.5", "--set", "federation.deadline_s=10"]
    arguments = [*faults.arguments, *settings]
    text = Run(tmp_path / "run", "--address", cluster.address, *arguments).succeeds()
    assert rounds_without(text, "c1") == [2]
    assert rounds_without(text, "c3") == [4]
    assert "c1 missing: loss is nan in round 2, batch 2" in text
    assert "c3 missing: host-2:c3, training c3, gave no answer" in text
    others = Faults(tmp_path / "others")
    others.plan("c1", 2, "nan")
    others.plan("c3", 4, "nan")
    alone = Run(tmp_path / "alone", "--runtime", "inline", *others.arguments, *settings)
    alone.succeeds()
    assert state_of(tmp_path / "run") == state_of(alone.out)


def rounds_without(text: str, client: str) -> list[int]:
    lines = [line for line in text.splitlines() if f"{client} missing" in line]
    return [int(line.split("/")[0].removeprefix("round ")) for line in lines]


def test_a_node_with_another_version_of_the_method_is_named(
    cluster: Nodes, undisturbed: State, tmp_path: Path
) -> None:
    faults = Faults(tmp_path / "faults")
    cluster.add()
    other = cluster.add(environment={OTHER_VERSION: "1"})
    sentence = Run(tmp_path / "run", "--address", cluster.address, *faults.arguments).fails()
    assert "every node must run the same version of physfed_ray and of the method" in sentence
    cluster.kill(other)
    run = Run(tmp_path / "run", "--address", cluster.address, "--resume", *faults.arguments)
    run.succeeds()
    assert state_of(run.out) == undisturbed

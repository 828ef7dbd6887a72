"""A whole node goes away, with or without another in its place; the driver goes away."""

from pathlib import Path

from tests.faults.nodes import Nodes
from tests.faults.runs import Run, State, state_of


def test_clients_move_to_a_new_node_or_to_the_hosts_that_are_left(
    cluster: Nodes, undisturbed: State, tmp_path: Path
) -> None:
    first, second = cluster.add(), cluster.add()
    run = Run(tmp_path / "run", "--address", cluster.address)
    run.wait_for_round(2)
    spare = cluster.add()
    cluster.kill(first)
    run.wait_for_text("replaced")
    number = run.last_round()
    assert "clients moved" not in run.text, run.text
    assert cluster.processes_of(spare, "ray::HostActor")
    run.wait_for_round(number + 2)
    cluster.kill(second)
    text = run.succeeds()
    assert text.count("clients moved to other hosts") == 1, text
    assert state_of(run.out) == undisturbed


def test_a_run_without_hosts_stops_and_a_killed_driver_resumes_on_fewer_nodes(
    cluster: Nodes, undisturbed: State, tmp_path: Path
) -> None:
    first, second = cluster.add(), cluster.add()
    run = Run(tmp_path / "run", "--address", cluster.address)
    run.wait_for_round(2)
    run.kill()
    cluster.kill(first)
    cluster.wait()
    resumed = Run(tmp_path / "run", "--address", cluster.address, "--resume")
    resumed.wait_for_round(run.last_round() + 3)
    assert "on 1 host(s)" in resumed.text
    cluster.kill(second)
    assert "all hosts are lost and no machine took their place" in resumed.fails()
    cluster.add(cpus=4)
    again = Run(tmp_path / "run", "--address", cluster.address, "--resume")
    assert "on 4 host(s)" in again.succeeds()
    assert state_of(run.out) == undisturbed

"""A whole node goes away, with or without another in its place; the driver goes away."""

from pathlib import Path

import pytest

from tests.faults.nodes import Nodes
from tests.faults.runs import Run, State, state_of

pytestmark = pytest.mark.cluster


def test_a_run_survives_its_driver_and_its_nodes(
    cluster: Nodes, undisturbed: State, tmp_path: Path
) -> None:
    """On three nodes, on two of them, on one and a new one, and on the new one alone."""
    first, second, third = (cluster.add() for _ in range(3))
    run = Run(tmp_path / "run", "--address", cluster.address)
    run.wait_for_round(2)
    run.kill()
    cluster.kill(first)
    cluster.wait()
    resumed = Run(tmp_path / "run", "--address", cluster.address, "--resume")
    resumed.wait_for_round(run.last_round() + 2)
    assert "on 2 host(s)" in resumed.text
    spare = cluster.add()
    cluster.kill(second)
    resumed.wait_for_text("replaced")
    number = resumed.last_round()
    assert "clients moved" not in resumed.text, resumed.text
    assert cluster.processes_of(spare, "ray::HostActor")
    resumed.wait_for_round(number + 2)
    cluster.kill(third)
    text = resumed.succeeds()
    assert text.count("clients moved to other hosts") == 1, text
    assert state_of(run.out) == undisturbed

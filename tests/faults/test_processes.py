"""A process of a run is killed; the run goes on to the same parameters."""

import re
from pathlib import Path

import pytest

from tests.faults.nodes import Nodes
from tests.faults.runs import Faults, Run, State, state_of

pytestmark = pytest.mark.cluster

ROUNDS = 12


def test_a_run_survives_the_death_of_each_of_its_processes(
    cluster: Nodes, undisturbed: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(tmp_path / "faults")
    faults.plan("c2", 3, "kill")
    for _ in range(2):
        cluster.add()
    monkeypatch.setenv("PHYSFED_CACHE", str(tmp_path / "cache"))
    run = Run(tmp_path / "run", "--address", cluster.address, *faults.arguments)
    cluster.kill_process("ray::_make")  # a preparation task's process
    run.wait_for_round(5)
    cluster.kill_process("ray::ServerActor")
    run.wait_for_round(ROUNDS)
    cluster.kill_process("ray::HostActor")  # in the last evaluation
    text = run.succeeds()
    trained = r"round 3: the process of host-\d:c1\.\.c2 died; replaced, its clients train again"
    assert re.search(trained, text), text
    assert re.search(r"the process of the parameter server died; replaced, going on", text), text
    assert f"the process of a host died; replaced, going on after round {ROUNDS}" in text, text
    assert state_of(run.out) == undisturbed

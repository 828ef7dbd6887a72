"""The head's control service dies, with and without a Redis that remembers for it."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.nodes import nodes, wait_for
from tests.faults.runs import Faults, Run, State, state_of

pytestmark = pytest.mark.cluster


def test_without_redis_the_run_ends_and_resumes_on_a_new_cluster(
    undisturbed: State, tmp_path: Path
) -> None:
    faults = Faults(tmp_path / "faults")
    faults.plan("c2", 3, "hang")  # else a fast run would end before Ray gives up
    with nodes(head_cpus=2) as cluster:
        run = Run(tmp_path / "run", "--address", cluster.address, *faults.arguments)
        run.wait_for_round(2)
        cluster.kill_gcs()
        assert run.status() != 0, run.text
    assert not (run.out / "summary.json").exists()
    Run(run.out, "--runtime", "inline", "--resume", *faults.arguments).succeeds()
    assert state_of(run.out) == undisturbed


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis of the test's own."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: answers(port), "Redis")
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_with_redis_the_run_goes_on(
    redis: str, undisturbed: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_REDIS_ADDRESS", redis)
    with nodes(head_cpus=2) as cluster:
        run = Run(tmp_path / "run", "--address", cluster.address)
        run.wait_for_round(2)
        cluster.kill_gcs()
        cluster.restart_gcs()
        run.succeeds()
    assert state_of(run.out) == undisturbed

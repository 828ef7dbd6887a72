"""Machines and reporters are lost while slices are described."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.nodes import PATIENCE_S, Nodes, wait_for

pytestmark = pytest.mark.cluster

COUNT = 240
REPORTER = "MapWorker"


class Job:
    """A process that describes slices."""

    def __init__(self, cluster: Nodes, folder: Path) -> None:
        self._said = folder / "said.txt"
        command = [sys.executable, "-m", "tests.faults.describing"]
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [*command, cluster.address, str(folder), str(COUNT)],
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        """All that it said."""
        return self._said.read_text()

    def wait_for(self, words: str) -> None:
        """Wait until it says something."""
        wait_for(lambda: words in self.text or self.process.poll() is not None, words)
        assert words in self.text, self.text

    def succeeds(self) -> None:
        """Wait for a good end, which Ray's own lines about its retries may follow."""
        assert self.process.wait(PATIENCE_S) == 0, self.text
        assert f"{COUNT} described" in self.text.splitlines(), self.text


@contextmanager
def job(cluster: Nodes, folder: Path) -> Iterator[Job]:
    running = Job(cluster, folder)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_a_machine_is_lost_and_the_others_describe_all(cluster: Nodes, tmp_path: Path) -> None:
    cluster.add()
    lost = cluster.add()
    with job(cluster, tmp_path) as running:
        running.wait_for("2 reporters")
        wait_for(lambda: cluster.processes_of(lost, REPORTER), "a reporter on the machine")
        cluster.kill(lost)
        running.succeeds()

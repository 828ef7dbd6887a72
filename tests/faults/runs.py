"""Runs of one small experiment through the command line, watched while they go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.test_resume import state_of
from tests.faults.nodes import PATIENCE_S, wait_for

__all__ = ["ENTRY_POINT", "Faults", "Run", "State", "state_of"]
State = dict[str, object]

EXPERIMENT = """
name: tiny
seed: 3
reports: {encoder: hashed}
data:
  source: {phantom: {patients: 6, slices: 3}}
  image_size: 48
  test_patients: 1
  validation_patients: 1
clients:
  - {id: c1, protocol: paper-2}
  - {id: c2, protocol: paper-6}
  - {id: c3, protocol: paper-8}
  - {id: c4, protocol: paper-2}
unseen: [{id: u1, protocol: unseen-2}]
backbone: {name: red_cnn, channels: 4}
method: {name: scan_physfed}
training: {rounds: 12, batch_size: 2, patch: 32, patches_per_slice: 4, evaluate_every: 4}
federation: {replace_s: 8}
"""
ENTRY_POINT = "[physfed_ray.methods]\nfaulty = tests.faults.faulty:Faulty\n"


class Faults:
    """Faults of the method ``faulty``, which take place once each.

    Args:
        folder: Where they are named.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def plan(self, client: str, number: int, kind: str) -> None:
        """Let a client 'kill' its host's process, send 'nan' or 'hang' in a round."""
        (self._folder / f"{client}-{number}").write_text(kind)

    @property
    def arguments(self) -> list[str]:
        """What makes a run use the method."""
        return ["--set", f"method={{name: faulty, folder: {self._folder}}}"]


class Run:
    """A run in a process of its own.

    Args:
        out: Run directory.
        more: Further arguments of ``physfed run``.
        beside: Where the experiment and what the user sees are written; beside ``out`` if that is
            a folder.
    """

    def __init__(self, out: Path | str, *more: str, beside: Path | None = None) -> None:
        self.out = Path(out)
        folder = beside or self.out.parent
        experiment = folder / "tiny.yaml"
        experiment.write_text(EXPERIMENT)
        number = len(list(folder.glob(f"{self.out.name}-*.txt")))
        self._log = (folder / f"{self.out.name}-{number}.txt").open("w")
        # Relative, and in another folder than that of the nodes: they must find it all the same.
        place = self.out.name if beside is None else str(out)
        physfed = [sys.executable, "-m", "tests.faults.driver"]
        command = [*physfed, "run", str(experiment), "--out", place]
        self.process = subprocess.Popen(
            [*command, *more],
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "400"},
        )

    @property
    def text(self) -> str:
        """What the user sees."""
        return Path(self._log.name).read_text()

    def wait_for_text(self, text: str) -> None:
        """Wait until the user sees a text."""
        wait_for(lambda: text in self.text or self._ended(), f"'{text}' in:\n{self.text}")
        assert text in self.text, self.text

    def wait_for_round(self, number: int) -> None:
        """Wait until a round is completed."""
        wait_for(
            lambda: self.last_round() >= number or self._ended(),
            f"round {number} in {self._log.name}",
        )
        assert self.last_round() >= number, self.text

    def last_round(self) -> int:
        """Return the last completed round, 0 before the first."""
        found = self.out.glob("checkpoints/round-*/state.json")
        return max((int(path.parent.name.removeprefix("round-")) for path in found), default=0)

    def kill(self) -> None:
        """Kill the driver."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def status(self) -> int:
        """Wait for the end and return the exit status."""
        return self.process.wait(PATIENCE_S)

    def succeeds(self) -> str:
        """Wait for a good end and return all that the user saw."""
        assert self.status() == 0, self.text
        return self.text

    def fails(self) -> str:
        """Wait for an end with an error and return its one sentence."""
        assert self.status() == 2, self.text
        assert "Traceback" not in self.text, self.text
        last = self.text.strip().splitlines()[-1]
        assert last.startswith("physfed: error: "), self.text
        return last

    def _ended(self) -> bool:
        return self.process.poll() is not None

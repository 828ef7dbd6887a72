"""`physfed submit` and `physfed jobs` against a real Ray head that wants a token."""

import os
import pty
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nodes import free_ports

pytestmark = pytest.mark.cluster

EXPERIMENT = """
name: tiny
data: {source: {phantom: {patients: 3, slices: 1}}, image_size: 32, test_patients: 1}
clients: "paper-[26]"
backbone: {channels: 2}
method: {name: fedavg}
training: {rounds: 1, batch_size: 2}
federation: {clients_per_host: 2}
"""
CLI = "import sys; from physfed_ray.cli import main; sys.exit(main())"
MARK = "PHYSFED_TEST_CLUSTER"
WAIT_S = 240.0


@dataclass
class Cluster:
    """A head with a token, its address, and the environment of a user who has the token."""

    address: str
    environment: dict[str, str]

    def popen(self, *arguments: str | Path, **settings: Any) -> "subprocess.Popen[str]":
        """Start a command whose output is read here unless the settings say otherwise."""
        streams = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "env": self.environment,
        }
        return subprocess.Popen(
            [sys.executable, "-c", CLI, *map(str, arguments), "--address", self.address],
            text=True,
            preexec_fn=heed_ctrl_c,
            **streams | settings,
        )

    def physfed(self, *arguments: str | Path, **variables: str | None) -> tuple[int, str]:
        """Run a command; a variable of None is taken away. Return exit status and output."""
        changed = self.environment | variables
        environment = {key: value for key, value in changed.items() if value is not None}
        with self.popen(*arguments, env=environment) as process:
            output, _ = process.communicate(timeout=WAIT_S)
        return process.returncode, output

    def status(self, job: str) -> str:
        """Return the status of a job in the list."""
        code, table = self.physfed("jobs")
        assert code == 0, table
        return next(line for line in table.splitlines() if line.startswith(job)).split()[1]


def heed_ctrl_c() -> None:
    """Undo that a suite started in the background ignores SIGINT, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def kill_marked(mark: str) -> None:
    """Kill the processes that inherited the mark of a cluster, and no others."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
        except (OSError, ProcessLookupError):
            continue


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a head whose machine has the `physfed` command, a token, and folders of its own."""
    home = tmp_path_factory.mktemp("home")
    mark = secrets.token_hex(8)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PHYSFED_"))}
    environment = kept | {
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
    }
    flags = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port",
             "metrics-export-port", "dashboard-agent-grpc-port")  # fmt: skip
    ports = free_ports(len(flags))
    # A Unix socket's path has at most 107 characters, too few for pytest's folders.
    temporary = tempfile.mkdtemp(prefix="ray-")
    start = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=2"),
        *("--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--disable-usage-stats"),
        *("--object-store-memory=100000000", f"--temp-dir={temporary}"),
        *(f"--{flag}={port}" for flag, port in zip(flags, ports, strict=True)),
    ]
    head = environment | {MARK: mark, "PHYSFED_CACHE": str(home / "cache")}
    try:
        done = subprocess.run(start, env=head, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Cluster(f"http://127.0.0.1:{ports[1]}", environment)
    finally:
        kill_marked(mark)
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the experiment file, in a folder that the job must not depend on."""
    path = tmp_path_factory.mktemp("user") / "my own.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def finished(
    cluster: Cluster, experiment: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, str]:
    """Return the run directory of a followed job, its exit status and its output."""
    runs = tmp_path_factory.mktemp("runs")
    code, output = cluster.physfed(
        *("submit", experiment, "--follow", "--set", "training.rounds=2"), PHYSFED_RUNS=str(runs)
    )
    return runs / "tiny-fedavg-seed1", code, output


def test_a_followed_job_leaves_its_report_where_it_said(finished: tuple[Path, int, str]) -> None:
    run_dir, code, output = finished
    assert code == 0, output
    assert f"run directory, on the cluster: {run_dir}" in output
    assert "round 2/2" in output  # the log, and the override
    assert (run_dir / "report.html").stat().st_size > 1000


def test_jobs_lists_it(cluster: Cluster, finished: tuple[Path, int, str]) -> None:
    run_dir, _, output = finished
    job = re.search(r"^job: (\S+)$", output, re.M)[1]
    code, table = cluster.physfed("jobs")
    assert code == 0
    line = next(line for line in table.splitlines() if line.startswith(job))
    assert re.fullmatch(
        rf"{job}  SUCCEEDED +tiny +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d +0:0\d:\d\d +{run_dir}", line
    )


def test_a_job_that_fails_fails_the_command_with_its_message(
    cluster: Cluster, experiment: Path, finished: tuple[Path, int, str]
) -> None:
    code, output = cluster.physfed("submit", experiment, "--follow", "--out", finished[0])
    assert code == 2
    last = output.strip().splitlines()[-1]
    assert re.match(r"physfed: error: job physfed-tiny-\w{6} failed with exit status 2: ", last)
    assert "already holds a run: add --resume" in last


def test_ray_s_own_submission_works_as_well(
    cluster: Cluster, experiment: Path, finished: tuple[Path, int, str]
) -> None:
    run = ["physfed", "run", experiment.name, "--out", finished[0], "--resume"]
    run += ["--set", "training.rounds=3"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit"),
            *("--address", cluster.address, "--working-dir", str(experiment.parent)),
            *("--", *map(str, run)),
        ],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 3/3" in done.stdout


class Terminal:
    """A `physfed` command on a terminal of its own."""

    def __init__(self, cluster: Cluster, *arguments: str | Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = cluster.popen(
            *arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.text = ""

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Read on until a pattern is on the screen."""
        while not (found := re.search(pattern, self.text)):
            try:
                self.text += os.read(self._ours, 4096).decode().replace("\r\n", "\n")
            except OSError:
                pytest.fail(f"ended without {pattern!r}: {self.text}")
        return found

    def type(self, text: str) -> None:
        """Write as a keyboard does."""
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Wait for the command and return its exit status."""
        code = self.process.wait(timeout=WAIT_S)
        os.close(self._ours)
        return code


def test_ctrl_c_asks_and_jobs_stop_stops(
    cluster: Cluster, experiment: Path, tmp_path: Path
) -> None:
    long = ("--set", "training.rounds=100000", "--set", "training.evaluate_every=100000")
    terminal = Terminal(cluster, "submit", experiment, *long, "--out", tmp_path, "--follow")
    job = terminal.wait_for(r"job: (\S+)\n")[1]
    terminal.wait_for(r"round \d+/100000")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for(r"stop the job as well\? \[y/N\] ")
    terminal.type("\n")
    terminal.wait_for(rf"job {job} goes on; to stop it: physfed jobs stop {job}")
    assert terminal.end() == 130
    assert cluster.status(job) == "RUNNING"

    with cluster.popen("jobs", "follow", job) as without_terminal:
        assert any("round" in line for line in without_terminal.stdout)
        without_terminal.send_signal(signal.SIGINT)
        output, _ = without_terminal.communicate(timeout=WAIT_S)
    assert without_terminal.returncode == 130
    assert "[y/N]" not in output
    assert f"to stop it: physfed jobs stop {job}" in output

    terminal = Terminal(cluster, "jobs", "follow", job)
    terminal.wait_for(r"round")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for(r"\[y/N\] ")
    terminal.type("y\n")
    again = terminal.wait_for(rf"stopped job {job}; to go on: (physfed submit .*)\n")[1]
    assert shlex.split(again)[-1] == "--resume"
    assert terminal.end() == 130
    assert cluster.status(job) == "STOPPED"
    assert (tmp_path / "checkpoints").is_dir()


def test_jobs_stop_stops(cluster: Cluster, experiment: Path, tmp_path: Path) -> None:
    code, output = cluster.physfed(
        "submit", experiment, "--set", "training.rounds=100000", "--out", tmp_path
    )
    assert code == 0
    job = re.search(r"^job: (\S+)$", output, re.M)[1]
    code, output = cluster.physfed("jobs", "stop", job)
    assert (code, output.split(";")[0]) == (0, f"stopped job {job}")
    assert cluster.physfed("jobs", "stop", job) == (0, f"job {job} had already ended: STOPPED\n")


def refusal(answer: tuple[int, str]) -> str:
    """Return the one sentence of a refused command."""
    code, output = answer
    assert code == 2
    assert output.startswith("physfed: error: ")
    assert output.count("\n") == 1
    return output


def test_a_job_that_does_not_exist(cluster: Cluster) -> None:
    for action in ("stop", "follow"):
        assert "there is no job nothing at" in refusal(cluster.physfed("jobs", action, "nothing"))


def test_the_token_is_needed(cluster: Cluster) -> None:
    wrong = cluster.physfed("jobs", RAY_AUTH_TOKEN="0" * 64)
    assert "refuses your token" in refusal(wrong)
    without = cluster.physfed("jobs", RAY_AUTH_TOKEN=None)
    assert "wants a token: set RAY_AUTH_MODE=token and put" in refusal(without)
    unaware = cluster.physfed("jobs", RAY_AUTH_MODE=None, RAY_AUTH_TOKEN=None)
    assert "wants a token: set RAY_AUTH_MODE=token and put" in refusal(unaware)


def test_the_token_may_lie_in_its_file(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(cluster.environment["RAY_AUTH_TOKEN"])
    code, table = cluster.physfed("jobs", RAY_AUTH_TOKEN=None, HOME=str(tmp_path))
    assert (code, table.split()[0]) == (0, "id")

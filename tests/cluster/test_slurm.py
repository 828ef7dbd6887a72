"""The Slurm script, run by stand-ins for Slurm's two commands with real Ray."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster/slurm/physfed.sbatch"


def stand_in(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text("#!/usr/bin/env bash\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a Slurm job on two nodes that are both this machine."""
    stand_in(tmp_path, "srun", 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    stand_in(tmp_path, "scontrol", f'echo "$*" >> {tmp_path}/asked\ntr , "\\n" <<< "$3"\n')
    job = 100_000 + os.getpid()
    yield dict(os.environ) | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "USER": "physfed",
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NODELIST": "node1,node2",
        "SLURM_CPUS_PER_TASK": "1",
        "PHYSFED_VENV": str(Path(sys.executable).parents[1]),
        "PHYSFED_RUNS": str(tmp_path / "runs"),
        "PHYSFED_CACHE": str(tmp_path / "cache"),
    }
    shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)  # logs, which the script leaves


TINY = """
name: tiny
data: {source: {phantom: {patients: 4, slices: 2}}, image_size: 32, test_patients: 1}
clients: [{id: a, protocol: paper-1}, {id: b, protocol: paper-2}]
backbone: {name: red_cnn, channels: 4}
method: {name: fedavg}
training: {rounds: 100_000, batch_size: 2}
"""


def left_over(slurm: dict[str, str]) -> list[str]:
    """Processes of the job's Ray that are still there."""
    mark = f"/tmp/ray-{slurm['SLURM_JOB_ID']}"
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if mark in line]


def test_that_the_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.mark.cluster
def test_that_a_slurm_job_uses_its_nodes_requeues_itself_and_leaves_nothing(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    with subprocess.Popen(
        ["bash", SCRIPT, "tiny.yaml", "--set", "name=set"],
        env=slurm,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as job:
        assert job.stdout is not None
        output = ""
        while "\nround 2/" not in output:
            line = job.stdout.readline()
            assert line, output
            output += line
        job.send_signal(signal.SIGUSR1)
        output += job.stdout.read()
    assert job.returncode == 0, output
    assert "Ray runs on 2 node(s)" in output
    assert (tmp_path / "asked").read_text().splitlines()[-1] == f"requeue {slurm['SLURM_JOB_ID']}"
    assert list((tmp_path / "runs").glob("set*/checkpoints/round-*"))
    assert not list(tmp_path.glob(".physfed-*"))  # the token
    assert not left_over(slurm)

"""The driver is killed in the middle; a resumed run equals one that was never disturbed.

In one process; tests/faults does it on Ray.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from physfed_ray.cli import main
from physfed_ray.runtime import run

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
unseen: [{id: u1, protocol: unseen-2}]
backbone: {name: red_cnn, channels: 4}
method: {name: scan_physfed}
training: {rounds: 12, batch_size: 2, patch: 32, patches_per_slice: 4, evaluate_every: 4}
"""


def command(experiment: Path, out: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "physfed_ray", "run", str(experiment), "--out", str(out)]
    return [*start, "--runtime", "inline", *more]


def kill_after_round(experiment: Path, out: Path, number: int) -> None:
    """Start a run, wait for a round's manifest, and kill the driver and all it started."""
    process = subprocess.Popen(
        command(experiment, out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    ends = time.monotonic() + 200
    while not list(out.glob(f"checkpoints/round-{number:04d}/state.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < ends, "no round was completed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def state_of(out: Path) -> dict[str, object]:
    """Return every tensor of the last checkpoint and every number that is not a time."""
    last = sorted(out.glob("checkpoints/round-*"))[-1]
    tensors = {
        f"{file.relative_to(last)}/{name}": value.tobytes()
        for file in sorted(last.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }
    rows = pq.read_table(out / "metrics.parquet").to_pylist()
    numbers = {
        f"{r['round']}/{r['client']}/{r['split']}/{r['metric']}": r["value"]
        for r in rows
        if r["split"] != "system" and r["metric"] != "seconds"
    }
    return {"last": last.name, **tensors, **numbers}


@pytest.mark.cluster
def test_a_killed_and_resumed_run_equals_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHYSFED_CACHE", str(tmp_path / "cache"))
    experiment = tmp_path / "tiny.yaml"
    experiment.write_text(EXPERIMENT)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_page", lambda directory: None)  # one page is enough
        assert main(command(experiment, undisturbed)[3:]) == 0
    kill_after_round(experiment, killed, 3)
    assert not (killed / "report.html").exists()
    subprocess.run(command(experiment, killed, "--resume"), check=True)
    assert (killed / "report.html").exists()
    assert state_of(killed) == state_of(undisturbed)

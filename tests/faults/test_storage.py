"""A full disk, a bucket out of reach, an object store that is too small."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from tests.faults.nodes import Nodes, nodes, wait_for
from tests.faults.runs import Faults, Run, State, state_of
from tests.s3_bucket import s3_bucket

pytestmark = pytest.mark.cluster

DISK_MB = 24
CUT_S = 5.0
BALLAST = 5000
"""Thousands of shared parameters: 20 MB, of which a store holds four."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that a few more megabytes fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))


def test_a_full_disk_stops_the_run_and_with_room_it_resumes(
    cluster: Nodes, undisturbed: State, small_disk: Path, tmp_path: Path
) -> None:
    cluster.add(cpus=2)
    run = Run(small_disk / "run", "--address", cluster.address, beside=tmp_path)
    run.wait_for_round(2)
    ballast = small_disk / "ballast"
    fill(ballast)
    sentence = run.fails()
    assert "No space left on device" in sentence
    assert "make room" in sentence
    assert "--resume" in sentence
    ballast.unlink()
    Run(run.out, "--runtime", "inline", "--resume", beside=tmp_path).succeeds()
    assert state_of(run.out) == undisturbed


def test_a_bucket_out_of_reach_is_waited_for(undisturbed: State, tmp_path: Path) -> None:
    with s3_bucket("results") as proxy, nodes(head_cpus=2) as cluster:
        run = Run("s3://results/run", "--address", cluster.address, beside=tmp_path)
        run.wait_for_text("round 3/12")
        proxy.cut()
        time.sleep(CUT_S)
        reached = run.text
        proxy.restore()
        run.succeeds()
        assert "round 12/12" not in reached
        files = fsspec.filesystem("s3")
        files.get("results/run/", f"{tmp_path}/copy/", recursive=True)
    assert state_of(tmp_path / "copy") == undisturbed


def test_vectors_that_do_not_fit_the_object_store_are_spilled(
    cluster: Nodes, undisturbed: State, tmp_path: Path
) -> None:
    faults, spilled = Faults(tmp_path / "faults"), tmp_path / "spilled"
    spilled.mkdir()
    cluster.add(cpus=4, object_spilling_directory=str(spilled))
    ballast = ["--set", f"method.ballast={BALLAST}"]
    run = Run(tmp_path / "run", "--address", cluster.address, *faults.arguments, *ballast)
    wait_for(lambda: [path for path in spilled.rglob("*") if path.is_file()], "a spilled object")
    run.succeeds()
    state = state_of(run.out)
    sizes = [len(value) for name, value in state.items() if "/ballast" in name]
    assert sizes == [4000 * BALLAST]
    assert {name: v for name, v in state.items() if "/ballast" not in name} == undisturbed

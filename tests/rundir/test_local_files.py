"""Files on a disk that is full or read-only."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.run_directory import Manifest, RunDirectory, client_file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("how", ["at once", "later", "tensors", "log"])
def test_a_full_disk_is_one_sentence_and_costs_nothing_old(small_disk: Path, how: str) -> None:
    directory = RunDirectory(small_disk / "run")
    directory.write("a", b"old")
    directory.append_line("run.log", "old")
    manifest = Manifest(1, {"c": 1})
    directory.commit(manifest)
    before = sorted(p.name for p in small_disk.rglob("*"))
    large = bytes(512 * 1024)

    def fill() -> None:
        if how == "at once":
            directory.write("a", large)
        elif how == "later":
            directory.write_later("a", large)
            directory.sync()
        elif how == "tensors":
            directory.write_tensors(client_file(2, "c"), {"w": torch.zeros(128 * 1024)})
        else:
            directory.append_line("run.log", large.hex())

    with pytest.raises(PhysFedError) as raised:
        fill()
    text = str(raised.value)
    assert text.startswith(str(small_disk / "run"))
    for words in ("No space left on device", "MB free", "make room", "--resume"):
        assert words in text
    assert "\n" not in text
    assert directory.read("a") == b"old"
    assert directory.read("run.log").startswith(b"old\n")
    assert not list(small_disk.rglob("*.tmp"))
    if how != "tensors":  # that one leaves the folders that it made
        assert sorted(p.name for p in small_disk.rglob("*")) == before
    assert RunDirectory(small_disk / "run").last_manifest() == manifest


def test_a_run_goes_on_when_there_is_room_again(small_disk: Path) -> None:
    directory = RunDirectory(small_disk / "run")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200 * 1024))
    with pytest.raises(PhysFedError):
        directory.write("a", bytes(100 * 1024))
    ballast.unlink()
    directory.write("a", bytes(100 * 1024))
    assert len(directory.read("a")) == 100 * 1024


def test_a_read_only_disk_is_refused_by_the_first_check(small_disk: Path) -> None:
    directory = RunDirectory(small_disk / "run")
    directory.write("a", b"old")
    directory.check()
    assert [p.name for p in (small_disk / "run").iterdir()] == ["a"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(PhysFedError, match=r"Read-only file system.*make it writable"):
        directory.check()
    with pytest.raises(PhysFedError, match=r"Read-only file system.*another --out"):
        RunDirectory(small_disk / "other").check()
    assert directory.read("a") == b"old"


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PhysFedError, match="Not a directory"):
        RunDirectory(tmp_path / "file" / "run").check()
    with pytest.raises(PhysFedError, match="cannot be written"):
        RunDirectory(tmp_path / "file").check()

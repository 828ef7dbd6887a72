"""The run directory: atomic writes, manifests, pruning, buckets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.long_table import SLICE_COLUMNS, LongTable
from physfed_ray.rundir.run_directory import (
    Manifest,
    RunDirectory,
    client_file,
    require_empty,
    round_name,
)


@pytest.fixture(params=["local", "bucket"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    """A run directory on disk, and one on an object store."""
    if request.param == "local":
        return RunDirectory(tmp_path / "run")
    return RunDirectory(f"memory://{tmp_path.name}/run")


def checkpoint(directory: RunDirectory, number: int, private: dict[str, int]) -> Manifest:
    for client, last in private.items():
        if last == number:
            directory.write_tensors(client_file(number, client), {"w": torch.ones(2) * number})
    directory.write_tensors(f"{round_name(number)}/server.safetensors", {"s": torch.zeros(1)})
    manifest = Manifest(number, private)
    directory.commit(manifest)
    return manifest


def test_tensors_tables_and_arrays_come_back(directory: RunDirectory) -> None:
    directory.write_tensors("a.safetensors", {"x": torch.arange(6).view(2, 3).T})
    assert torch.equal(directory.read_tensors("a.safetensors")["x"], torch.arange(6).view(2, 3).T)
    rows = [(1, "c1", "train", "loss", 0.5), (1, "c2", "train", "loss", float("nan"))]
    directory.write_table("m.parquet", LongTable(rows=rows))
    assert directory.read_table("m.parquet").rows()[0] == rows[0]
    directory.write_table("empty.parquet", LongTable(SLICE_COLUMNS))
    assert directory.read_table("empty.parquet", SLICE_COLUMNS).rows() == []
    assert directory.read_table("absent.parquet", SLICE_COLUMNS).names == SLICE_COLUMNS
    directory.write_arrays("a.npz", {"test/c1/low": np.eye(3)})
    directory.append_line("run.log", "one")
    directory.append_line("run.log", "two")
    assert directory.read("run.log") == b"one\ntwo\n"


def test_a_round_without_a_manifest_does_not_exist(directory: RunDirectory) -> None:
    assert directory.last_manifest() is None
    checkpoint(directory, 1, {"c1": 1})
    directory.write_tensors(client_file(2, "c1"), {"w": torch.ones(1)})
    assert directory.last_manifest() == Manifest(1, {"c1": 1})


def test_pruning_keeps_what_the_kept_rounds_refer_to(directory: RunDirectory) -> None:
    checkpoint(directory, 1, {"c1": 1, "c2": 1})
    checkpoint(directory, 2, {"c1": 2, "c2": 1})
    checkpoint(directory, 3, {"c1": 3, "c2": 1})
    directory.prune(checkpoint(directory, 4, {"c1": 4, "c2": 1}), keep=2)
    assert directory.exists(client_file(1, "c2"))
    assert not directory.exists(client_file(1, "c1"))
    assert not directory.exists(round_name(2))
    assert directory.exists(client_file(3, "c1"))
    assert directory.last_manifest() == Manifest(4, {"c1": 4, "c2": 1})


def test_rounds_between_checkpoints_keep_what_the_next_manifest_names(
    directory: RunDirectory,
) -> None:
    """Every fifth round has a manifest; clients trained in rounds of their own."""
    trained = {"c1": [1, 4, 7], "c2": [5, 6], "c3": [2]}
    for client, rounds in trained.items():
        for number in rounds:
            directory.write_tensors(client_file(number, client), {"w": torch.ones(1)}, later=True)
    directory.sync()
    directory.commit(Manifest(5, {"c1": 4, "c2": 5, "c3": 2}))
    last = Manifest(10, {"c1": 7, "c2": 6, "c3": 2})
    directory.commit(last)
    directory.prune(last, keep=2)
    kept = {(c, n) for c, rounds in trained.items() for n in rounds if exists(directory, c, n)}
    assert kept == {("c1", 4), ("c1", 7), ("c2", 5), ("c2", 6), ("c3", 2)}
    assert directory.last_manifest() == last
    directory.prune(last, keep=1)
    kept = {(c, n) for c, rounds in trained.items() for n in rounds if exists(directory, c, n)}
    assert kept == {("c1", 7), ("c2", 6), ("c3", 2)}
    assert not directory.exists(round_name(4))


def exists(directory: RunDirectory, client: str, number: int) -> bool:
    return directory.exists(client_file(number, client))


def test_shared_parameters_in_use_are_kept(directory: RunDirectory) -> None:
    for number in range(1, 6):
        checkpoint(directory, number, {"c1": number})
    last = Manifest(6, {"c1": 5}, bases=(2, 4))
    directory.commit(last)
    directory.prune(last, keep=1)
    kept = [n for n in range(1, 7) if directory.exists(f"{round_name(n)}/server.safetensors")]
    assert kept == [2, 4]
    manifests = [n for n in range(1, 7) if directory.exists(f"{round_name(n)}/state.json")]
    assert manifests == [6]
    assert RunDirectory(directory.root).last_manifest() == last


def test_a_client_ahead_of_the_manifest_keeps_its_file(directory: RunDirectory) -> None:
    directory.write_tensors(client_file(2, "slow"), {"w": torch.ones(1)})
    directory.prune(checkpoint(directory, 3, {"slow": 0, "c1": 3}), keep=1)
    assert exists(directory, "slow", 2)
    directory.prune(checkpoint(directory, 4, {"slow": 2, "c1": 3}), keep=1)
    assert exists(directory, "slow", 2)
    checkpoint(directory, 5, {"slow": 5, "c1": 3})
    directory.prune(Manifest(5, {"slow": 5, "c1": 3}), keep=1)
    assert not exists(directory, "slow", 2)


def test_unfinished_files_of_killed_writers_are_swept(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    unfinished = [f"{client_file(1, 'c1')}.0123abcd.tmp", f"{round_name(1)}/server.tmp"]
    for name in unfinished:
        directory.write(name, b"half")
    checkpoint(directory, 1, {"c1": 1, "c2": 1})
    directory.prune(checkpoint(directory, 2, {"c1": 2, "c2": 1}), keep=1)
    assert not any(directory.exists(name) for name in unfinished)
    assert exists(directory, "c2", 1)


def test_an_older_manifest_is_read(directory: RunDirectory) -> None:
    directory.write_json(f"{round_name(3)}/state.json", {"round": 3, "private_rounds": {"a": 2}})
    assert directory.last_manifest() == Manifest(3, {"a": 2}, ())


def test_what_is_still_being_written_can_be_read(directory: RunDirectory) -> None:
    for number in range(30):
        directory.write_tensors(f"t{number}", {"x": torch.tensor([number])}, later=True)
        assert directory.read_tensors(f"t{number}")["x"].item() == number
    directory.close()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.write("a", b"old")
    with pytest.raises(TypeError):
        directory.write("a", "not bytes")  # type: ignore[arg-type]
    assert directory.read("a") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_directory_with_a_run_is_refused(directory: RunDirectory) -> None:
    require_empty(directory)
    directory.write("experiment.yaml", b"name: x")
    with pytest.raises(PhysFedError, match="--resume"):
        require_empty(directory)

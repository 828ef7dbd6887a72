"""Files reach the nodes that lack them, whole, and no others."""

import os
import re
import resource
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray._private.internal_api import memory_summary
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from physfed_ray.errors import PhysFedError
from physfed_ray.runtime import files
from tests.runtime.two_nodes import SecondNode

MIB = 2**20


class Receiver:
    """What a host's actor must have, and how the tests look into its node."""

    missing = staticmethod(files.missing)
    receive = staticmethod(files.receive)
    sees = staticmethod(files.sees)

    def checksum(self, path: Path) -> str:
        """Return the checksum of the file that the node has for a path of the driver's."""
        return checksum(files.locate(path))

    def contents(self, folder: Path) -> list[str]:
        """Return the names of the files that the node has below a folder."""
        return sorted(path.name for path in folder.rglob("*") if path.is_file())


def write(path: Path, seed: int, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path


def checksum(path: Path) -> str:
    return blake2b(path.read_bytes()).hexdigest()


def chunks(content: bytes, size: int) -> list[tuple[np.ndarray, int, int]]:
    data = np.frombuffer(content, np.uint8)
    return [(data[i : i + size], i, len(data)) for i in range(0, len(data), size)]


def test_missing_is_absent_or_of_another_size(tmp_path: Path) -> None:
    same, shorter = write(tmp_path / "same", 1, 100), write(tmp_path / "shorter", 2, 99)
    absent = tmp_path / "absent"
    assert files.missing({same: 100, shorter: 100, absent: 100}) == [shorter, absent]


def test_a_file_appears_whole_with_its_last_chunk(tmp_path: Path) -> None:
    content, path = os.urandom(1000), tmp_path / "new" / "folder" / "a.arrow"
    *first, last = chunks(content, 300)
    for chunk in first:
        files.receive(path, *chunk)
        assert not path.exists()
    files.receive(path, *last)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.arrow"]
    assert files.locate(path) == path


def test_a_chunk_without_those_before_it_is_refused(tmp_path: Path) -> None:
    _, second = chunks(os.urandom(200), 100)
    with pytest.raises(PhysFedError, match="cannot store prepared files"):
        files.receive(tmp_path / "a.arrow", *second)
    assert not list(tmp_path.iterdir())


def test_a_file_whose_folder_cannot_be_made_lies_in_the_nodes_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHYSFED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "blocked").write_text("no folder")
    content = [os.urandom(10), os.urandom(10)]
    paths = [tmp_path / "blocked" / client / "a.arrow" for client in ("one", "two")]
    for path, bytes_ in zip(paths, content, strict=True):
        files.receive(path, *chunks(bytes_, 10)[0])
    assert [files.locate(path).read_bytes() for path in paths] == content
    assert files.missing(dict.fromkeys(paths, 10)) == []
    assert files.missing(dict.fromkeys(paths, 11)) == paths


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limits[1]))
    try:
        with pytest.raises(PhysFedError, match=rf"{tmp_path} \(File too large\); make room"):
            files.receive(tmp_path / "a", np.zeros(2 * MIB, np.uint8), 0, 2 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def seen(two_nodes_seen: Mapping[str, Any]) -> dict[str, Any]:
    """What a driver and the actors of two nodes saw, the second without the first one's files."""
    return dict(two_nodes_seen["files"])


def hide(folder: Path) -> tuple[list[Path], str]:
    """Return folders instead of which the second node sees empty ones, and what becomes of those.

    It cannot write to one of them, and another one is small.
    """
    walled, tight = folder / "walled", folder / "tight"
    hidden = [folder / "data", walled, tight]
    for path in hidden:
        path.mkdir()
    return hidden, f"mount -o remount,ro '{walled}' && mount -o remount,size=1m '{tight}'"


def use_two_nodes(folder: Path, cache: Path, second: SecondNode) -> dict[str, Any]:
    data, walled, tight = folder / "data", folder / "walled", folder / "tight"
    big = write(data / "big.arrow", 1, 100 * MIB)
    small = write(data / "train" / "small.arrow", 2, 1000)
    paths = [big, small, write(walled / "elsewhere.arrow", 3, 500)]
    too_large = write(tight / "too_large.arrow", 4, 2 * MIB)
    near, far = receivers(second)
    sent = {"near": files.ship(near, paths), "far": files.ship(far, [*paths, big])}
    sent["again"] = files.ship(far, paths)
    write(small, 5, 1200)
    sent["changed"] = files.ship(far, paths)
    with pytest.raises(PhysFedError) as refused:
        files.ship(far, [too_large])
    return {
        "sent": sent,
        "here": [checksum(path) for path in paths],
        "there": ray.get([far.checksum.remote(path) for path in paths]),
        "contents": ray.get([far.contents.remote(path) for path in (data, cache)]),
        "refused": str(refused.value),
        "left": ray.get(far.contents.remote(tight)),
        "store": memory_summary(second.cluster.address, stats_only=True),
        "own": files.without_run_directory(data / "run", [near, far, near]),
        "shared": files.without_run_directory(folder / "run", [near, far, near]),
        "tokens": list(folder.rglob(".seen*")),
    }


@pytest.mark.cluster
def test_a_node_gets_the_files_that_it_lacks_and_no_others(seen: dict[str, Any]) -> None:
    assert seen["sent"] == {"near": 0, "far": 100 * MIB + 1500, "again": 0, "changed": 1200}
    assert seen["there"] == seen["here"]
    # The node's cache has what cannot lie at its own path.
    assert seen["contents"] == [["big.arrow", "small.arrow"], ["elsewhere.arrow"]]


@pytest.mark.cluster
def test_a_file_larger_than_the_object_store_passes_through_it(seen: dict[str, Any]) -> None:
    assert "Plasma memory usage" in seen["store"]
    assert "Spilled" not in seen["store"]


@pytest.mark.cluster
def test_a_node_that_cannot_store_a_file_says_so_in_one_sentence(seen: dict[str, Any]) -> None:
    sentence = r"node \S+ cannot store .*No space left.*another folder\."
    assert re.fullmatch(sentence, seen["refused"])
    assert seen["left"] == []


@pytest.mark.cluster
def test_a_run_directory_that_a_node_does_not_share_is_noticed(seen: dict[str, Any]) -> None:
    assert (seen["own"], seen["shared"]) == ([1], [])
    assert seen["tokens"] == []


def receivers(second: SecondNode) -> list[Any]:
    """Return an actor on this process's node and one on the second."""
    ids = [ray.get_runtime_context().get_node_id(), second.id]
    return [
        ray.remote(Receiver)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False))
        .remote()
        for id in ids
    ]

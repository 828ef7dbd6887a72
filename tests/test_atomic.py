"""A file is there whole or not at all, and nothing is left of what failed."""

import os
import time
from pathlib import Path

import pytest

from physfed_ray.atomic import ABANDONED_AFTER_S, atomic_file, sweep
from physfed_ray.errors import PhysFedError


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a"
    with atomic_file(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a"]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_a_block_that_fails_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with (
        pytest.raises(PhysFedError, match="is a folder where a file is to be"),
        atomic_file(tmp_path / "a") as temporary,
    ):
        temporary.touch()
    assert os.listdir(tmp_path) == ["a"]


def test_only_what_was_abandoned_long_ago_is_swept(tmp_path: Path) -> None:
    for name, age in ((".old.1.tmp", ABANDONED_AFTER_S + 60), (".new.1.tmp", 60), ("old.tmp", 1e6)):
        for folder in (tmp_path, tmp_path / "ab"):
            folder.mkdir(exist_ok=True)
            (folder / name).touch()
            os.utime(folder / name, (time.time() - age,) * 2)
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".new.1.tmp", "ab", "old.tmp"]
    assert sorted(os.listdir(tmp_path / "ab")) == [".new.1.tmp", "old.tmp"]

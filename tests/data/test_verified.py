"""Prepared data that changed on the disk are noticed, named and made again."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.data import verified
from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import prepare
from physfed_ray.data.prepared import MANIFEST, Prepared
from physfed_ray.data.store import read_client_data, read_scans, write_client_data
from physfed_ray.errors import DamagedError
from physfed_ray.events import Event
from tests.data.test_prepare import contents, make_experiment
from tests.data.test_store import make_data
from tests.rundir.damage import KINDS, flip


@pytest.fixture(autouse=True, scope="module")
def _salt() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHYSFED_SALT", "of the tests")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(make_experiment(tmp_path_factory.mktemp("whole")))


@pytest.fixture
def cache(whole: Prepared, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.root.parents[1], tmp_path / "cache"))


def prepared_again(cache: Path) -> tuple[Prepared, list[str]]:
    """Prepare, and return what was said of damage."""
    events: list[Event] = []
    found = prepare(make_experiment(cache), progress=events.append)
    texts = [event["text"] for event in events if event["event"] == "message"]
    return found, [text for text in texts if "made again" in text]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["train/a.arrow", "test/b.arrow", MANIFEST])
def test_a_damaged_file_of_a_data_set_is_made_again(
    whole: Prepared, cache: Path, name: str, kind: str
) -> None:
    path = cache / "prepared" / whole.root.name / name
    KINDS[kind](path)
    found, said = prepared_again(cache)
    if (name, kind) != (MANIFEST, "deleted"):  # a data set without a manifest is not finished
        assert len(said) == 1
        assert said[0].startswith(f"{path} ")
    assert contents(found) == contents(whole)
    assert found.record == whole.record
    assert prepared_again(cache)[1] == []


def test_a_file_of_another_client_is_noticed(whole: Prepared, cache: Path) -> None:
    root = cache / "prepared" / whole.root.name
    shutil.copy(root / "validation/a.arrow", root / "train/a.arrow")
    found, said = prepared_again(cache)
    assert "train/a.arrow is another client's" in said[0]
    shutil.copy(root / "train/b.arrow", root / "train/a.arrow")
    assert "a.arrow is another file (b.arrow) under this name" in prepared_again(cache)[1][0]
    assert contents(found) == contents(whole)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "deleted"])
def test_a_damaged_shard_is_made_again_and_said(whole: Prepared, cache: Path, kind: str) -> None:
    shutil.rmtree(cache / "prepared")
    shards = sorted(cache.glob("shards/*/*.arrow"))
    KINDS[kind](shards[0])
    shutil.copy(shards[1], shards[2])
    found, said = prepared_again(cache)
    assert {text.split(" ")[0] for text in said} == {str(shards[0]), str(shards[2])}
    assert contents(found) == contents(whole)


def test_damaged_reports_and_embeddings_are_made_again(
    whole: Prepared, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(cache / "prepared")
    for folder in ("reports", "embeddings"):
        flip(next((cache / folder).rglob("*.arrow")), 0.5)
    found, _ = prepared_again(cache)
    assert len([r for r in caplog.records if "is damaged" in r.getMessage()]) == 2
    assert contents(found) == contents(whole)


def test_the_record_depends_neither_on_the_folder_nor_on_the_salt(
    whole: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHYSFED_SALT", "another")
    again = prepare(make_experiment(tmp_path))
    assert whole.record is not None
    assert again.record is not None
    assert (again.record.patients, again.record.scans) == (
        whole.record.patients,
        whole.record.scans,
    )
    other = prepare(make_experiment(tmp_path, seed=2))
    assert other.record is not None
    assert other.record.scans != whole.record.scans


def test_a_file_is_compared_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Path] = []
    compare = verified._compare

    def counted(path: Path, *rest: object) -> object:
        compared.append(path)
        return compare(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(verified, "_compare", counted)
    path = tmp_path / "c.arrow"
    write_client_data(path, make_data())
    for _ in range(3):
        read_client_data(path)
    assert len(compared) == 1
    write_client_data(path, make_data(2))
    read_client_data(path)
    assert len(compared) == 2


def test_shards_are_known_by_their_names(whole: Prepared, cache: Path) -> None:
    todo = plan(make_experiment(cache))
    one, two = (todo.path_of(shard) for shard in todo.shards[:2])
    os.replace(one, two)
    with pytest.raises(DamagedError, match="under this name"):
        read_scans(two)


@given(st.floats(0, 1), st.integers(0, 7))
def test_a_bit_that_changes_a_value_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: float, bit: int
) -> None:
    """A bit of the padding, which nothing reads, may go unnoticed; a value may not."""
    path = tmp_path_factory.mktemp("bit") / "c.arrow"
    data = make_data(3, 16)
    write_client_data(path, data)
    flip(path, position, bit)
    try:
        found = read_client_data(path)
    except DamagedError:
        return
    for name, value in vars(data).items():
        same: Callable[..., bool] = np.array_equal
        assert same(getattr(found, name), value) if name != "extra" else found.extra == {}

"""Every file of a run, damaged in every way: noticed, said in one sentence, and mended by resuming.

One small run of three rounds is made once and copied. What a resumed run leaves equals, bit for
bit, what the undisturbed one left.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.pages.run_page import write_run_page
from physfed_ray.results.runs import read_results
from physfed_ray.rundir.intact import newest_intact
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime import run
from physfed_ray.runtime.run import run_experiment
from physfed_ray.serving.trained import load_run
from tests.end_to_end.test_resume import state_of
from tests.rundir.damage import KINDS, flip

EXPERIMENT = """
name: tiny
reports: {encoder: hashed}
data:
  source: {phantom: {patients: 4, slices: 1}}
  image_size: 32
  test_patients: 1
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
backbone: {channels: 2}
method: {name: scan_physfed}
training: {rounds: 3, batch_size: 2}
federation: {keep_checkpoints: 3}
"""
LAST = "checkpoints/round-0003"
PARTS = tuple(
    f"{LAST}/{name}"
    for name in (
        "server.safetensors", "codebook.safetensors", "clients/c1.safetensors",
        "clients/c2.safetensors", "metrics.parquet", "state.json",
    )
)  # fmt: skip
RESULTS = ("metrics.parquet", "slices.parquet", "summary.json", "examples.npz", "codebook.npz")
KEPT_TWICE = ("experiment.yaml", "model.json", "data.json")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return load_experiment(folder / "tiny.yaml", [f"data.cache={folder / 'cache'}"])


@pytest.fixture(scope="module")
def whole(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run, which nobody may change."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_page", lambda directory: None)
        run_experiment(experiment, out, runtime="inline")
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "write_page", lambda directory: None)
    return Path(shutil.copytree(whole, tmp_path / "run"))


def resumed(experiment: Experiment, out: Path) -> list[str]:
    """Go on with a run, and return what it said."""
    events: list[Event] = []
    run_experiment(experiment, out, runtime="inline", resume=True, on_event=events.append)
    return [event["text"] for event in events if event["event"] == "message"]


def swap(name: str) -> Callable[[Path], None]:
    """Return what puts a sibling in a file's place: another round's, or another client's."""
    if name.endswith("c1.safetensors"):
        return lambda path: shutil.copy(path.with_name("c2.safetensors"), path) and None
    return lambda path: shutil.copy(str(path).replace("-0003", "-0002"), path) and None


@pytest.mark.parametrize("kind", [*KINDS, "swapped"])
@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_part_sends_the_run_back_to_the_newest_intact_round(
    experiment: Experiment, whole: Path, copy: Path, name: str, kind: str
) -> None:
    (swap(name) if kind == "swapped" else KINDS[kind])(copy / name)
    said = resumed(experiment, copy)
    lost = (name, kind) == (f"{LAST}/state.json", "deleted")
    words = "round 3 is not complete (it has no state.json)" if lost else f"{copy / name} is"
    (notice,) = [text for text in said if text.startswith(words)]
    assert notice.endswith("going on after round 2, the newest intact one")
    assert state_of(copy) == state_of(whole)
    assert load_run(copy).round == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RESULTS)
def test_a_damaged_result_is_refused_by_name_and_written_anew(
    experiment: Experiment, whole: Path, copy: Path, name: str, kind: str
) -> None:
    KINDS[kind](copy / name)
    what = "is gone" if kind == "deleted" else "is damaged"
    for read in (read_results, write_run_page):
        with pytest.raises(PhysFedError, match=rf"{name} {what}.*run again with --resume"):
            read(copy)
    resumed(experiment, copy)
    assert state_of(copy) == state_of(whole)
    assert read_results(copy).finished


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KEPT_TWICE)
def test_a_copy_stands_in_for_what_nothing_could_make_again(
    experiment: Experiment, whole: Path, copy: Path, name: str, kind: str
) -> None:
    KINDS[kind](copy / name)
    said = resumed(experiment, copy)
    assert any(f"{name} is" in text and "its copy" in text for text in said)
    assert (copy / name).read_bytes() == (whole / name).read_bytes()
    assert state_of(copy) == state_of(whole)
    for place in (copy / name, copy / "checkpoints" / name):
        flip(place)
    with pytest.raises(PhysFedError, match=rf"{name} is damaged"):
        resumed(experiment, copy)


def test_damaged_checksums_are_said_and_written_anew(
    experiment: Experiment, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip(copy / "checksums.json")
    assert "damage of the other files may go unnoticed" in (RunDirectory(copy).unchecked or "")
    said = resumed(experiment, copy)
    assert any("checksums.json is damaged" in text for text in said)
    assert RunDirectory(copy).unchecked is None


@pytest.mark.parametrize("gone", ["state.json", ""])
def test_an_earlier_model_is_not_taken_for_that_of_a_finished_run(
    experiment: Experiment, whole: Path, copy: Path, gone: str
) -> None:
    newest = copy / "checkpoints/round-0003"
    (newest / gone).unlink() if gone else shutil.rmtree(newest)
    with pytest.raises(PhysFedError, match=r"round-0003/state\.json is gone"):
        load_run(copy)
    resumed(experiment, copy)
    assert load_run(copy).round == 3
    assert state_of(copy) == state_of(whole)


def test_without_checksums_a_file_of_another_kind_is_not_believed(copy: Path) -> None:
    flip(copy / "checksums.json")
    shutil.copy(copy / "slices.parquet", copy / "metrics.parquet")
    with pytest.raises(PhysFedError, match=r"metrics\.parquet is damaged"):
        read_results(copy)


@pytest.mark.parametrize("checksums", [True, False])
def test_a_folder_in_place_of_a_file_is_named(
    experiment: Experiment, copy: Path, checksums: bool
) -> None:
    if not checksums:
        flip(copy / "checksums.json")
    for name in ("codebook.npz", "checkpoints/round-0003/state.json"):
        (copy / name).unlink()
        (copy / name).mkdir()
    with pytest.raises(PhysFedError, match=r"codebook\.npz is damaged"):
        read_results(copy)
    with pytest.raises(PhysFedError, match=r"state\.json cannot be deleted: Is a directory"):
        resumed(experiment, copy)


def test_what_cannot_be_checked_is_said_of_every_run_that_is_damaged(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two"):
        shutil.copytree(copy, tmp_path / name)
        flip(tmp_path / name / "checksums.json")
        for _ in range(2):
            read_results(tmp_path / name)
    said = [record.getMessage() for record in caplog.records if "unnoticed" in record.getMessage()]
    assert [any(name in text for text in said) for name in ("/one/", "/two/")] == [True, True]
    assert len(said) == 2


def test_another_file_is_not_taken_for_checksums_nor_a_folder_for_the_log(copy: Path) -> None:
    shutil.copy(copy / "checkpoints/round-0003/state.json", copy / "checksums.json")
    assert "checksums.json is damaged" in (RunDirectory(copy).unchecked or "")
    (copy / "run.log").unlink()
    (copy / "run.log").mkdir()
    assert read_results(copy).missing == ()


def test_no_intact_round_is_an_error_and_no_new_beginning(
    experiment: Experiment, copy: Path
) -> None:
    for part in copy.glob("checkpoints/round-*/server.safetensors"):
        flip(part)
    with pytest.raises(PhysFedError, match=r"no round of .* is intact .*begin anew"):
        resumed(experiment, copy)
    for manifest in copy.glob("checkpoints/round-*/state.json"):
        manifest.unlink()
    with pytest.raises(PhysFedError, match=r"no round of .* is intact .*no state\.json"):
        resumed(experiment, copy)


def test_a_run_of_an_earlier_version_is_read_and_goes_on(
    experiment: Experiment, whole: Path, copy: Path
) -> None:
    """Without checksums, without data.json, without copies."""
    (copy / "checksums.json").unlink()
    for name in (*KEPT_TWICE, "../data.json"):
        (copy / "checkpoints" / name).unlink()
    for manifest in copy.glob("checkpoints/round-*/state.json"):
        state = json.loads(manifest.read_text())
        del state["parts"], state["checksum"]
        manifest.write_text(json.dumps(state))
        (manifest.parent / "metrics.parquet").unlink()
    assert "has no checksums" in (RunDirectory(copy).unchecked or "")
    assert read_results(copy).data is None
    assert load_run(copy).round == 3
    resumed(experiment, copy)
    assert RunDirectory(copy).unchecked is None
    assert read_results(copy).data == read_results(whole).data


@given(
    st.sampled_from([*PARTS, *RESULTS, *KEPT_TWICE, "checksums.json"]),
    st.floats(0, 1),
    st.integers(0, 7),
)
def test_one_bit_anywhere_is_noticed(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, name: str, position: float, bit: int
) -> None:
    root = tmp_path_factory.mktemp("bit")
    for path in whole.rglob("*"):
        if path.is_file() and "figures" not in path.parts:
            target = root / path.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    (root / name).unlink()
    shutil.copy(whole / name, root / name)
    flip(root / name, position, bit)
    directory = RunDirectory(root)
    notices: list[str] = []
    directory.notice = notices.append
    if name.startswith("checkpoints/"):
        notices += newest_intact(directory).notices
    else:
        notices += directory.problems([name])
        notices += [directory.unchecked or ""]
    assert any(name in text for text in notices)

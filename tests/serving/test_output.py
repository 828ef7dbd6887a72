"""The output folder: what is refused, and what a second call compares."""

import fcntl
from pathlib import Path

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.serving.output import alone, check_places, check_same, read_record, write_record


@pytest.mark.parametrize(
    ("source", "out", "said"),
    [
        ("in", "in/out", "lies in the folder that is read"),
        ("in", "in", "lies in the folder that is read"),
        ("in/DICOMDIR", "in/out", "lies in the folder that is read"),
        ("in/a.dcm", "in/out", "lies in the folder that is read"),
        ("in", ".", "holds the folder that is read"),
        ("in", "other", "holds something else"),
        ("in", "other/file", "is a file"),
        ("in", "link/out", "lies in the folder that is read"),
    ],
)
def test_places_that_do_not_do(tmp_path: Path, source: str, out: str, said: str) -> None:
    for name in ("in/a.dcm", "in/DICOMDIR", "other/file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(PhysFedError, match=said):
        check_places(tmp_path / source, tmp_path / out)


def test_new_empty_and_begun_folders_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "empty").mkdir()
    check_places(tmp_path / "in", tmp_path / "empty")
    check_places(tmp_path / "in", tmp_path / "new" / "deep")
    write_record(tmp_path / "empty", {"format": 1})
    (tmp_path / "empty" / "series-001").mkdir()
    check_places(tmp_path / "in", tmp_path / "empty")
    assert read_record(tmp_path / "empty") == {"format": 1}
    assert read_record(tmp_path / "new") is None
    (tmp_path / "empty" / "denoised.json").write_text("{")
    with pytest.raises(PhysFedError, match="is damaged"):
        read_record(tmp_path / "empty")


def test_another_model_or_other_images_are_refused(tmp_path: Path) -> None:
    before = {"format": 1, "model": {"name": "A", "run_hash": "1"}, "rule": "own",
              "series": {"s": {"images": "x"}}}  # fmt: skip
    check_same(tmp_path, before, before | {"series": {"t": {"images": "y"}}})
    with pytest.raises(PhysFedError, match=r"another model \(run_hash '1', now '2'\)"):
        check_same(tmp_path, before, before | {"model": {"name": "A", "run_hash": "2"}})
    with pytest.raises(PhysFedError, match=r"another rule \('own', now 'trained'\)"):
        check_same(tmp_path, before, before | {"rule": "trained"})
    with pytest.raises(PhysFedError, match="the images of s are not those"):
        check_same(tmp_path, before, before | {"series": {"s": {"images": "y"}}})


def test_one_process_at_a_time_and_no_half_written_file(tmp_path: Path) -> None:
    half = tmp_path / "series-001" / ".00001.dcm.77.abc.tmp"
    half.parent.mkdir()
    half.write_text("half")
    with alone(tmp_path):
        assert not half.exists()
        with pytest.raises(PhysFedError, match="another process is writing"), alone(tmp_path):
            pass
    assert not (tmp_path / ".lock").exists()
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PhysFedError, match="another process"), alone(tmp_path):
            pass

"""Listing a folder: all that lies in it, once, and nothing else."""

import os
import random
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from physfed_ray.data.dicom.listing import (
    LINK_OUT,
    UNREADABLE_FOLDER,
    folder_of,
    list_folder,
    missing_from_index,
)
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.left_out import source_line
from physfed_ray.errors import PhysFedError


def test_a_folder_called_dicomdir_is_read_alone(tmp_path: Path, write_ct):
    write_ct(tmp_path / "DICOMDIR" / "a", patient="inside")
    write_ct(tmp_path / "b", patient="outside")
    assert folder_of(tmp_path / "DICOMDIR") == tmp_path / "DICOMDIR"
    assert DicomSource(tmp_path / "DICOMDIR").ids() == ("inside",)
    assert DicomSource(tmp_path).ids() == ("inside", "outside")


@pytest.mark.parametrize("target", ["folder", "file", "root", "missing"])
def test_links_out_of_the_folder_are_counted_and_not_followed(tmp_path: Path, write_ct, target):
    outside = write_ct(tmp_path / "other" / "slice", patient="outside")
    write_ct(tmp_path / "root" / "a", patient="inside")
    leads = {"folder": outside.parent, "file": outside, "root": "/", "missing": "/no/such/place"}
    (tmp_path / "root" / "link").symlink_to(leads[target])
    source = DicomSource(tmp_path / "root")
    assert source.ids() == ("inside",)
    assert source.summary()["left_out"] == {LINK_OUT: 1}
    assert source.summary()["files"] == 1
    assert source.left_out_paths()[LINK_OUT] == (tmp_path / "root" / "link",)


def test_a_folder_whose_name_only_begins_alike_is_outside(tmp_path: Path, write_ct):
    write_ct(tmp_path / "root-2" / "a")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "root-2")
    assert list_folder(tmp_path / "root").skipped == {LINK_OUT: (tmp_path / "root" / "link",)}


def test_links_inside_the_folder_give_no_file_twice_and_the_root_may_be_one(
    tmp_path: Path, write_ct
):
    write_ct(tmp_path / "root" / "deep" / "a")
    (tmp_path / "root" / "again").symlink_to(tmp_path / "root" / "deep")
    (tmp_path / "root" / "copy").symlink_to("deep/a")
    (tmp_path / "root" / "deep" / "up").symlink_to("..")
    (tmp_path / "door").symlink_to(tmp_path / "root")
    for root in (tmp_path / "root", tmp_path / "door"):
        listing = list_folder(root)
        assert listing.files == (root / "deep" / "a",)
        assert listing.skipped == {}
    assert DicomSource(tmp_path / "door").summary()["left_out"] == {}


def test_folders_that_do_not_open_are_counted(tmp_path: Path, write_ct, monkeypatch):
    write_ct(tmp_path / "open" / "a")
    closed = write_ct(tmp_path / "closed" / "b").parent
    scandir = os.scandir  # Tests may run as root, whom no permission stops.

    def refuse(folder):
        if Path(folder) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    source = DicomSource(tmp_path)
    assert source.summary()["left_out"] == {UNREADABLE_FOLDER: 1}
    assert source.left_out_paths() == {UNREADABLE_FOLDER: (closed,)}
    with pytest.raises(PhysFedError, match=f"left out: 1 {UNREADABLE_FOLDER}"):
        DicomSource(closed)


def test_random_trees_are_listed_as_a_plain_walk_lists_them(tmp_path: Path):
    rng = random.Random(3)
    folders = [tmp_path]
    for index in range(60):
        parent = rng.choice(folders)
        if rng.random() < 0.3:
            folders.append(parent / f"f{index}")
            folders[-1].mkdir()
        elif rng.random() < 0.4:
            (parent / f"l{index}").symlink_to(rng.choice([*folders, Path("/tmp"), Path("nowhere")]))
        else:
            (parent / f"d{index}").touch()
    walked = [Path(f, n) for f, _, names in os.walk(tmp_path) for n in names]
    real = sorted(p for p in walked if not p.is_symlink())
    listing = list_folder(tmp_path)
    assert [path for path in listing.files if path.exists()] == real
    assert len(listing.files) == len(set(listing.files))


def test_what_a_dicomdir_lists_in_vain_is_said(tmp_path: Path, write_ct):
    files = FileSet()
    for z_mm in range(3):
        files.add(
            write_ct(
                tmp_path / "in" / f"{z_mm}",
                z_mm=z_mm,
                StudyTime="1200",
                StudyID="1",
                AccessionNumber="",
            )
        )
    files.write(tmp_path / "cd")
    paths = [path for path in (tmp_path / "cd").rglob("*") if path.is_file()]
    images = [path for path in paths if path.name != "DICOMDIR"]
    images[0].unlink()
    line = source_line(DicomSource(tmp_path / "cd" / "DICOMDIR").summary())
    assert line.endswith("left out: 1 DICOMDIR index, 1 listed in a DICOMDIR but not there")
    for path in images[1:]:
        path.unlink()
    with pytest.raises(PhysFedError, match="3 listed in a DICOMDIR but not there"):
        DicomSource(tmp_path / "cd")


def test_a_broken_index_misses_nothing(tmp_path: Path):
    (tmp_path / "DICOMDIR").write_bytes(b"nonsense" * 40)
    assert missing_from_index(tmp_path / "DICOMDIR", []) == 0

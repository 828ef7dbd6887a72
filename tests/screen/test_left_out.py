"""Left-out files are counted, not listed."""

from pathlib import Path

import pytest

from physfed_ray.screen.left_out import FIRST, print_left_out


def test_ten_thousand_files_are_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    many = [("not DICOM", Path(f"/ct/{n}")) for n in range(10_000)]
    print_left_out([*many, ("localizer", Path("/ct/scout"))])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == FIRST + 2
    assert lines[0] == "left out (not DICOM): /ct/0"
    assert lines[FIRST] == f"left out (not DICOM): and {10_000 - FIRST:,} more files"
    assert lines[-1] == "left out (localizer): /ct/scout"

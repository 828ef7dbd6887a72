"""``physfed surrogate`` from the command line, to its table and its page."""

from pathlib import Path

import pytest

from physfed_ray.cli import main
from tests.surrogates.small import SMALL


def test_a_study_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "out"
    file.write_text(SMALL)
    given = ["surrogate", str(file), "--out", str(out), "--set", "quality=null"]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "5 of 5 done" in said
    assert "0 (host)" in said
    assert (out / "surrogate.html").exists()
    assert main(given) == 0
    assert "seed 1" not in capsys.readouterr().out

"""Experiments that come with the package: by name, from any folder, one file each."""

import subprocess
import sys
from pathlib import Path

import pytest

from physfed_ray.cli import main
from physfed_ray.experiment import load_experiment
from physfed_ray.shipped import FOLDER, found, shipped

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def test_the_shipped_files_are_those_of_the_experiments_folder() -> None:
    assert "quickstart" in shipped()
    for link in FOLDER.iterdir():
        assert link.is_symlink(), "a copy would be a second home"
        assert link.resolve() == EXPERIMENTS / link.name


@pytest.mark.parametrize("name", shipped())
def test_a_name_is_the_file_in_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_experiment(name) == load_experiment(EXPERIMENTS / f"{name}.yaml")


def test_a_file_of_yours_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("quickstart.yaml", "./quickstart.yaml", "a/quickstart", "nosuch"):
        assert found(given) == Path(given)
    Path("quickstart").mkdir()
    assert found("quickstart") == shipped()["quickstart"]
    Path("quickstart").rmdir()
    Path("quickstart").write_text("name: mine")
    assert found("quickstart") == Path("quickstart")


def test_experiments_prints_the_list_or_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped())
    assert main(["experiments", "quickstart"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert load_experiment(tmp_path / "mine.yaml") == load_experiment("quickstart")


def test_a_name_that_is_none_says_where_names_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "quickstrat"]) == 2
    assert "`physfed experiments` lists" in capsys.readouterr().err
    assert main(["experiments", "quickstrat"]) == 2
    assert "there are: quickstart, template" in capsys.readouterr().err


def test_a_name_costs_no_import() -> None:
    code = "import sys, physfed_ray.shipped as s; s.shipped(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"pydantic", "yaml", "numpy", "torch"}

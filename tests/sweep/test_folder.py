"""A sweep on a bucket: the study comes back from it, on whatever machine goes on."""

import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import optuna
import pytest

from physfed_ray.cache import cache_folder
from tests.s3_bucket import s3_bucket
from tests.sweep.conftest import TINY


@pytest.mark.cluster
def test_a_sweep_on_a_bucket_goes_on_without_the_folder_of_the_first_machine(
    tmp_path: Path,
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "physfed_ray", "sweep", str(tmp_path / "tiny.yaml")]
    command += ["--out", "s3://sweeps/tiny", "--runtime", "inline", "--set", "training.rounds=2"]
    with s3_bucket("sweeps"):
        subprocess.run([*command, "--set", "trials=1"], check=True)
        shutil.rmtree(cache_folder(None) / "sweeps")
        subprocess.run([*command, "--set", "trials=2", "--resume"], check=True)
        files = fsspec.filesystem("s3")
        found = set(files.find("sweeps/tiny"))
        page = files.cat("sweeps/tiny/sweep.html").decode()
        files.get("sweeps/tiny/study.db", str(tmp_path / "study.db"))
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    for name in ("best.yaml", "tables/trials.csv", "trials/trial-0001/seed1/run.log"):
        assert f"sweeps/tiny/{name}" in found, sorted(found)
    assert f"{study.trials[1].values[0]:.3f}" in page

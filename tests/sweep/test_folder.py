"""A sweep on a bucket: the study comes back from it, on whatever machine goes on."""

import shutil
from pathlib import Path

import fsspec
from optuna.trial import TrialState

from physfed_ray.data.plan import cache_folder
from physfed_ray.sweep.driver import run_sweep
from physfed_ray.sweep.folder import Folder
from physfed_ray.sweep.page import write_results
from physfed_ray.sweep.pool import Setup
from tests.s3_bucket import s3_bucket
from tests.sweep.conftest import MakeSweep


def test_a_sweep_on_a_bucket_goes_on_without_the_folder_of_the_first_machine(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    with s3_bucket("sweeps"):
        out = "s3://sweeps/tiny"
        first = run_sweep(
            make_sweep("trials=1", "training.rounds=2"), Setup(Folder(out), runtime="inline")
        )
        shutil.rmtree(cache_folder(None) / "sweeps")
        more = make_sweep("trials=2", "training.rounds=2")
        second = run_sweep(more, Setup(Folder(out), runtime="inline", resume=True))
        write_results(more, Folder(out), second)
        files = fsspec.filesystem("s3")
        found = set(files.find("sweeps/tiny"))
        page = files.cat("sweeps/tiny/sweep.html").decode()
    assert [trial.state for trial in second.study.trials] == [TrialState.COMPLETE] * 2
    assert second.study.frozen(0).values == first.study.frozen(0).values
    for name in ("study.db", "best.yaml", "tables/trials.csv", "trials/trial-0001/seed1/run.log"):
        assert f"sweeps/tiny/{name}" in found, sorted(found)
    assert f"{second.study.frozen(1).values[0]:.3f}" in page

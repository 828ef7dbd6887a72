"""Objectives: what a sweep knows of them comes from the metrics, and each has a direction."""

from pathlib import Path

import numpy as np
import pytest

from physfed_ray.metrics.registry import METRICS, metrics_of
from physfed_ray.runtime.run import run_experiment
from physfed_ray.screen.sweep import objective_words
from physfed_ray.suites.suite import SuiteRun
from physfed_ray.sweep import figures as draw
from physfed_ray.sweep.figures import Tried
from physfed_ray.sweep.objectives import COSTS, find_objective
from physfed_ray.sweep.study import SweepStudy
from physfed_ray.sweep.trials import scores_of
from tests.sweep import known
from tests.sweep.conftest import MakeSweep

OWN = ("psnr", "ssim", "rmse_hu", "psnr_body", "ssim_body", "fsim", "nps",
       "pd_efflite0", "fd_efflite0")  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_every_metric_with_a_direction_is_an_objective(name: str) -> None:
    assert name in METRICS
    for metric in metrics_of(name):
        if metric.better != "neither":
            objective = find_objective(metric.name)
            assert objective.better == metric.better
            assert objective.measured_by == name
            assert objective.optional == (name in OWN[5:])
            assert objective.worth(2.0) == metric.worth(2.0)


def test_values_are_printed_with_what_their_metric_says() -> None:
    assert objective_words("psnr", 41.23456) == "psnr 41.235 dB"
    assert objective_words("ssim", 0.912345678) == "ssim 0.91235"
    assert objective_words("bytes_per_round", 3.21e6) == "bytes_per_round 3.21 MB"
    assert find_objective("psnr").axis == "PSNR (dB), validation"
    assert find_objective("ssim[-160,240]").labelled == "SSIM [-160,240]"
    assert find_objective("rmse_hu").direction == "minimize"
    assert {cost.direction for cost in COSTS.values()} == {"minimize"}


def test_where_less_is_better_the_lowest_trial_is_the_best() -> None:
    study = SweepStudy(known.settings(objectives=["rmse_hu", "psnr"], sampler="random"), None)
    for rmse in (20.0, 12.0, 30.0):
        trial, _ = study.ask()
        study.tell(trial, known.TrialState.COMPLETE, [rmse, 60 - rmse])
    best = study.best()
    assert best is not None
    assert best.values[0] == 12.0


def test_figures_follow_the_direction() -> None:
    found = [50.0, 20.0, 30.0, 400.0]
    trials = [Tried(k, "complete", {}, (v,), {1: v}, 1) for k, v in enumerate(found)]
    ax = draw.history(trials, "rmse_hu").axes[0]
    low, high = ax.get_ylim()
    assert low < 20 < 50 <= high < 400
    assert ax.get_ylabel() == "RMSE (HU), validation"
    points, best = (np.asarray(line.get_ydata()) for line in ax.lines)
    assert points.max() == high  # the trial far off lies at the edge
    assert best[:4].tolist() == [50, 20, 20, 20]


def test_an_optional_metric_is_measured_on_validation_patients_because_it_is_wanted(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    sweep = make_sweep("objectives=[nps_area_hu2, 'fsim[-160,240]']", "training.rounds=1")
    experiment = sweep.experiment({}, 1)
    assert experiment.evaluation.metrics == ("nps", "fsim")
    run_experiment(experiment, tmp_path / "run", runtime="inline", tested=False)
    scores = scores_of(str(tmp_path), SuiteRun("run", experiment))
    assert 0 < scores["fsim[-160,240]"] < 1
    assert scores["psnr"] > 10
    assert {"nps_area_hu2", "rmse_hu", "bytes_per_round", "parameters"} < set(scores)

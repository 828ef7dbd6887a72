"""What a sweep leaves to read, from studies that were filled in here."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from physfed_ray.experiment import load_experiment
from physfed_ray.sweep import figures as draw
from physfed_ray.sweep.driver import SweepResult
from physfed_ray.sweep.folder import STUDY, Folder
from physfed_ray.sweep.page import importances, rounds_saved, tried, write_results
from physfed_ray.sweep.space import Sweep
from physfed_ray.sweep.study import ROUNDS, SweepStudy
from tests.sweep.conftest import TINY, MakeSweep
from tests.sweep.test_space import CONDITIONAL


def filled(sweep: Sweep, path: Path | None = None, trials: int = 24) -> SweepStudy:
    """Return a study in which tau alone matters; every third trial is pruned after one round."""
    study = SweepStudy(sweep.file, path)
    for number in range(trials):
        trial, values = study.ask()
        psnr = 40 - abs(math.log10(values.get("method.tau", 1e-3)) + 3)
        if number % 3 == 2:
            study.report(trial, psnr - 2, 1)
            trial.set_user_attr(ROUNDS, 1)
            study.tell(trial, TrialState.PRUNED, reason="after 1 rounds")
        else:
            study.report(trial, psnr, 4)
            trial.set_user_attr(ROUNDS, 4)
            study.tell(trial, TrialState.COMPLETE, [psnr])
    return study


def test_the_page_has_every_trial_and_its_figures(make_sweep: MakeSweep, tmp_path: Path) -> None:
    sweep = make_sweep("sampler=random")
    folder = Folder(str(tmp_path / "out"))
    study = filled(sweep, folder.local / STUDY)
    best = study.best()
    assert best is not None
    experiment = sweep.experiment(study.values(best), 11, "tiny-best")
    page = write_results(sweep, folder, SweepResult(study, best=experiment), "physfed sweep x.yaml")
    text = Path(page).read_text()
    assert text.count('<tr class="complete">') == 16
    assert text.count('<tr class="pruned">') == 8
    assert "after 1 rounds" in text
    assert text.count("<img") == 5
    assert "physfed sweep x.yaml" in text
    for name in ("history", "courses", "slices", "parallel", "importances"):
        assert (folder.local / "figures" / f"{name}.png").stat().st_size > 5000
    assert load_experiment(folder.local / "best.yaml") == experiment
    rows = list(csv.DictReader((folder.local / "tables" / "trials.csv").open()))
    assert [int(row["trial"]) for row in rows] == list(range(24))
    assert float(rows[best.number]["psnr"]) == best.values[0]
    assert rows[2]["psnr"] == ""
    assert float(rows[2]["last_value"]) < 40


def test_no_trial_is_left_out_of_a_figure(make_sweep: MakeSweep) -> None:
    """What lies far below the best is at the lower edge."""
    sweep = make_sweep("sampler=random")
    study = filled(sweep)
    trial, _ = study.ask()
    study.report(trial, -400.0, 1)
    study.tell(trial, TrialState.PRUNED, reason="after 1 rounds")
    trials = tried(study)
    for ax in (draw.history(trials, "psnr").axes[0],
               *draw.slices(trials, sweep.file.space, "psnr").axes[:3]):  # fmt: skip
        heights = np.concatenate(
            [*(line.get_ydata() for line in ax.lines),
             *(points.get_offsets()[:, 1] for points in ax.collections)]
        )  # fmt: skip
        assert len(heights) >= 25
        assert heights.min() == ax.get_ylim()[0] > 20
        assert heights.max() < ax.get_ylim()[1]


@pytest.mark.filterwarnings("error:constrained_layout not applied:UserWarning")
def test_figures_of_trials_of_which_none_was_pruned_are_laid_out(make_sweep: MakeSweep) -> None:
    sweep = make_sweep("sampler=random")
    trials = tried(filled(sweep, trials=2))
    assert {trial.state for trial in trials} == {"complete"}
    for figure in (draw.history(trials, "psnr"), draw.courses(trials, "psnr"),
                   draw.slices(trials, sweep.file.space, "psnr")):  # fmt: skip
        figure.savefig(io.BytesIO())


def test_importances_find_the_parameter_that_matters(make_sweep: MakeSweep) -> None:
    sweep = make_sweep("sampler=random")
    found = importances(filled(sweep, trials=45))
    assert set(found) == set(sweep.file.space)
    assert sum(found.values()) == pytest.approx(1)
    assert found["method.tau"] > 0.8
    assert importances(filled(sweep, trials=6)) == {}


def test_pruning_saves_the_rounds_that_were_not_trained(make_sweep: MakeSweep) -> None:
    sweep = make_sweep("sampler=random")
    assert rounds_saved(sweep, tried(filled(sweep))) == pytest.approx(8 * 3 / (24 * 4))


def test_a_page_of_conditional_parameters_and_of_nothing(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    before, after = TINY.split("space:")[0], "trials:" + TINY.split("trials:")[1]
    sweep = make_sweep(text=f"{before}space:{CONDITIONAL}{after}")
    some, none = Folder(str(tmp_path / "some")), Folder(str(tmp_path / "none"))
    study = filled(sweep, some.local / STUDY)
    page = Path(write_results(sweep, some, SweepResult(study))).read_text()
    assert page.count("<img") >= 4
    empty = SweepStudy(sweep.file, none.local / STUDY)
    page = Path(write_results(sweep, none, SweepResult(empty, out_of_time=True))).read_text()
    assert "The time budget ended this sweep" in page
    assert "<img" not in page


def test_the_pareto_front_is_drawn_and_each_of_its_trials_is_an_experiment(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    sweep = make_sweep("objectives=[psnr, bytes_per_round]", "sampler=random")
    folder = Folder(str(tmp_path / "out"))
    study = SweepStudy(sweep.file, folder.local / STUDY)
    for psnr, size in ((40.0, 5e6), (42.0, 9e6), (39.0, 6e6), (41.0, 5.5e6)):
        trial, _ = study.ask()
        study.tell(trial, TrialState.COMPLETE, [psnr, size])
    page = Path(write_results(sweep, folder, SweepResult(study))).read_text()
    assert (folder.local / "figures" / "front.png").exists()
    found = sorted(path.stem for path in (folder.local / "front").iterdir())
    assert found == ["trial-0000", "trial-0001", "trial-0003"]
    values = study.values(study.frozen(3))
    experiment = load_experiment(folder.local / "front" / "trial-0003.yaml")
    assert experiment.training.lr == values["training.lr"]
    assert "bytes per round (MB)" in page

"""A sweep run for real, on tiny phantoms: what is tried, told, resumed, and named as failed."""

import io
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from physfed_ray.cli import main
from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import load_experiment
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.run import run_experiment
from physfed_ray.screen.sweep import SweepDisplay, print_result
from physfed_ray.suites.state import State
from physfed_ray.sweep import trials
from physfed_ray.sweep.driver import HOPELESS, Driver, SweepResult, run_sweep
from physfed_ray.sweep.folder import STUDY, Folder
from physfed_ray.sweep.page import write_results
from physfed_ray.sweep.pool import Setup, TrialPool
from physfed_ray.sweep.space import Sweep, load_sweep
from physfed_ray.sweep.study import ATTEMPTS, REASON, ROUNDS, SweepStudy
from physfed_ray.sweep.trials import scores_of, trial_name, trial_runs
from tests.sweep.conftest import TINY, MakeSweep


def here(out: Path, **more: Any) -> Setup:
    """Return a sweep in processes of this machine."""
    return Setup(Folder(str(out)), runtime="inline", **more)


def rows(run_dir: Path | str) -> list[Any]:
    with closing(RunDirectory(str(run_dir))) as directory:
        return directory.read_table("metrics.parquet").rows()


def splits(run_dir: Path) -> set[str]:
    return {row[2] for row in rows(run_dir)}


def state(result: SweepResult, number: int) -> str:
    return result.study.frozen(number).state.name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sweep, Path, SweepResult]]:
    """A whole sweep of two trials of two seeds, two side by side, and its page."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.yaml").write_text(TINY)
    sweep = load_sweep(folder / "tiny.yaml", ["seeds=[1, 2]", "training.rounds=2", "trials=2"])
    out = folder / "out"
    result = run_sweep(sweep, here(out, jobs=2))
    write_results(sweep, Folder(str(out)), result, "physfed sweep tiny.yaml")
    return sweep, out, result


def test_a_trial_s_value_is_the_validation_score_of_its_experiment(
    finished: tuple[Sweep, Path, SweepResult], tmp_path: Path
) -> None:
    """Trained again here, by itself, with the whole evaluation."""
    sweep, out, result = finished
    trial = result.study.frozen(1)
    experiments = [sweep.experiment(result.study.values(trial), seed, "tiny") for seed in (1, 2)]
    psnr = []
    for run in trial_runs(1, experiments):
        run_experiment(run.experiment, tmp_path / run.name, runtime="inline")
        psnr.append(scores_of(str(out), run)["psnr"])
        found = [
            row[4]
            for row in rows(tmp_path / run.name)
            if row[:1] + row[2:4] == (2, "validation", "psnr")
        ]
        assert psnr[-1] == sum(found) / len(found)
    assert trial.values == [sum(psnr) / 2]


def test_every_trial_is_complete_and_the_first_is_the_base(
    finished: tuple[Sweep, Path, SweepResult],
) -> None:
    sweep, _, result = finished
    assert [state(result, n) for n in range(2)] == ["COMPLETE"] * 2
    assert result.study.values(result.study.frozen(0)) == sweep.base_values()
    assert [t.user_attrs[ROUNDS] for t in result.study.trials] == [4] * 2
    assert not result.failed


def test_trials_never_look_at_test_patients_and_the_best_does_once(
    finished: tuple[Sweep, Path, SweepResult],
) -> None:
    _, out, result = finished
    for run in sorted((out / "trials").glob("*/seed*")):
        assert {s for s in splits(run) if s.startswith(("test", "unseen"))} == set(), run
        assert not (run / "report.html").exists()
    best = result.study.best()
    assert best is not None
    assert len(list((out / "trials").glob("*/seed*"))) == 4
    expected = {f"best-{best.number:04d}/seed11"} | ({"base/seed11"} if best.number else set())
    found = {str(path.relative_to(out / "final")) for path in (out / "final").glob("*/*")}
    assert found == expected
    for name in expected:
        assert {"test", "unseen/pvqs"} <= splits(out / "final" / name)


def test_the_best_is_an_experiment_that_runs_as_it_was_tested(
    finished: tuple[Sweep, Path, SweepResult],
) -> None:
    sweep, out, result = finished
    best = result.study.best()
    assert best is not None
    experiment = load_experiment(out / "best.yaml")
    values = result.study.values(best)
    assert experiment == sweep.experiment(values, 11, "tiny-best")
    assert experiment.training.lr == values["training.lr"]


def test_tensorboard_and_the_tables_have_every_trial(
    finished: tuple[Sweep, Path, SweepResult],
) -> None:
    _, out, result = finished
    lines = (out / "tables" / "trials.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("trial,state,psnr,last_value,method.tau")
    for number in range(2):
        folder = out / "trials" / trial_name(number)
        assert list((folder / "seed1").glob("events.out.tfevents.*"))
        assert list((folder / "hparams").glob("events.out.tfevents.*"))
    page = (out / "sweep.html").read_text()
    best = result.study.best()
    assert best is not None
    assert f"{best.values[0]:.3f}" in page
    assert "optuna-dashboard sqlite:///" in page


def test_again_nothing_is_left_to_do(finished: tuple[Sweep, Path, SweepResult]) -> None:
    sweep, out, result = finished
    with pytest.raises(PhysFedError, match="add --resume"):
        run_sweep(sweep, here(out))
    events: list[Event] = []
    again = run_sweep(sweep, here(out, resume=True, jobs=2), events.append)
    assert events == []
    assert again.finals == result.finals


def test_more_trials_are_added_to_a_finished_sweep(
    finished: tuple[Sweep, Path, SweepResult],
) -> None:
    sweep, out, result = finished
    before = [trial.values for trial in result.study.trials]
    more = load_sweep(sweep.path, ["seeds=[1, 2]", "training.rounds=2", "trials=3"])
    events: list[Event] = []
    after = run_sweep(more, here(out, resume=True, jobs=2), events.append)
    assert [trial.values for trial in after.study.trials][:2] == before
    assert len(after.study.trials) == 3
    best = after.study.best()
    assert best is not None
    screen = io.StringIO()
    SweepDisplay(more.file, Console(file=screen, width=200))(
        next(event for event in events if event["event"] == "told")
    )
    words = f"best psnr {best.values[0]:.3f} dB, {trial_name(best.number)}"
    words = "the best so far" if best.number == 2 else words
    assert f"(3 of 3 done; {words})" in screen.getvalue()


def children() -> list[Any]:
    return multiprocessing.active_children()


def test_a_trial_that_is_killed_again_and_again_is_marked_and_the_others_go_on(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    sweep = make_sweep("trials=3", "retries=1", "training.rounds=2")
    killed: list[str] = []

    def kill(event: Event) -> None:
        """Kill each process of the second trial as soon as it trains."""
        inner = event.get("inner", {})
        if event["name"] == "trial-0001" and inner.get("event") == "start":
            killed.append(event["name"])
            for child in children():
                os.kill(child.pid, signal.SIGKILL)

    result = run_sweep(sweep, here(tmp_path / "out", jobs=1), kill)
    assert killed == ["trial-0001"] * 2
    assert [state(result, n) for n in range(3)] == ["COMPLETE", "FAIL", "COMPLETE"]
    failed = result.study.frozen(1)
    assert "SIGKILL" in failed.user_attrs[REASON]
    assert failed.user_attrs[ATTEMPTS] == 2
    page = Path(write_results(sweep, Folder(str(tmp_path / "out")), result)).read_text()
    assert "its process ended with SIGKILL" in page


def test_a_trial_that_diverges_is_told_as_pruned(make_sweep: MakeSweep, tmp_path: Path) -> None:
    """At tau = 1e12 the loss overflows."""
    text = TINY.replace("{log_uniform: [1e-6, 1]}", "{choice: [1e-4, 1e12]}")
    text = text.replace("training: {", "training: {optimizer: sgd, ")
    settings = ("trials=4", "training.rounds=2", "sampler=random", "method.orth=inner")
    sweep = make_sweep(*settings, text=text)
    result = run_sweep(sweep, here(tmp_path / "out", jobs=1))
    by_tau = {trial.params["method.tau"]: trial for trial in result.study.trials}
    assert by_tau[1e-4].state == TrialState.COMPLETE
    assert by_tau[1e12].state == TrialState.PRUNED
    assert "loss is " in by_tau[1e12].user_attrs[REASON]


@pytest.mark.cluster
def test_a_killed_sweep_goes_on_with_the_trials_that_were_running(tmp_path: Path) -> None:
    """SIGKILL of the command; the resumed study equals that of an undisturbed sweep."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    overrides = ["trials=2", "training.rounds=6"]
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [sys.executable, "-m", "physfed_ray", "sweep", str(tmp_path / "tiny.yaml"),
               "--out", str(out), "--runtime", "inline", "--jobs", "1"]  # fmt: skip
    command += [part for entry in overrides for part in ("--set", entry)]
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True) as process:
        second = (
            out / "trials" / trial_name(1) / "seed1" / "checkpoints" / "round-0002" / "state.json"
        )
        until = time.monotonic() + 300
        while not (seen := second.exists()) and time.monotonic() < until:
            time.sleep(0.02)
        process.kill()
    assert seen  # its run may train a moment longer, and leave only later checkpoints
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{out / 'study.db'}")
    assert [t.state.name for t in study.trials] == ["COMPLETE", "RUNNING"]
    time.sleep(1.0)  # its runs end with it
    assert main([*command[3:], "--resume"]) == 0
    undisturbed = run_sweep(
        load_sweep(tmp_path / "tiny.yaml", overrides),
        here(whole, jobs=1),
    )
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{out / 'study.db'}")
    assert [(t.params, t.values) for t in study.trials] == [
        (t.params, t.values) for t in undisturbed.study.trials
    ]
    log = (out / "trials" / trial_name(1) / "seed1" / "run.log").read_text().splitlines()
    starts = [e for e in map(json.loads, log) if e["event"] == "start"]
    assert len(starts) == 2
    assert starts[1]["from_round"] >= 2


def test_the_time_budget_ends_trials_which_resume_finishes(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    sweep = make_sweep("trials=2", "training.rounds=2")
    out = tmp_path / "out"
    result = run_sweep(sweep, here(out, jobs=1, time_budget_s=0.0))
    assert result.out_of_time
    assert result.best is None
    assert not result.study.count(TrialState.COMPLETE)
    again = run_sweep(sweep, here(out, resume=True, jobs=1))
    assert not again.out_of_time
    assert again.study.count(TrialState.COMPLETE) == 2


def test_data_that_cannot_be_prepared_end_the_sweep_at_once(
    make_sweep: MakeSweep, tmp_path: Path
) -> None:
    sweep = make_sweep("data.source={phantom: {patients: 2, slices: 1}}")
    with pytest.raises(PhysFedError, match="patients"):
        run_sweep(sweep, here(tmp_path / "out"))


class EndsAtOnce:
    """A pool whose runs end as they are begun."""

    def __init__(self, outcome: str) -> None:
        self.outcome, self.begun, self._waiting = outcome, 0, list[Any]()

    @property
    def free(self) -> int:
        """One at a time."""
        return 1 - len(self._waiting)

    def add(self, wanted: Any) -> None:
        """Begin a run."""
        self.begun += 1
        self._waiting.append(wanted)

    def hear(self) -> None:
        """End it."""
        waiting, self._waiting = self._waiting, []
        for wanted in waiting:
            wanted.hear({"event": "end", "outcome": self.outcome, "text": "it fell over"})

    def drop(self, name: str) -> None:
        """Nothing goes on for so long that it could be stopped."""


def driven(sweep: Sweep, out: Path, outcome: str) -> tuple[SweepResult, EndsAtOnce, str]:
    """Drive a sweep whose runs end at once; return what its display printed as well."""
    setup, pool, screen = here(out), EndsAtOnce(outcome), io.StringIO()
    study = SweepStudy(sweep.file, setup.folder.local / STUDY)
    show = SweepDisplay(sweep.file, Console(file=screen, width=200))
    driver = Driver(sweep, setup, study, cast(TrialPool, pool), show)
    driver.run()
    return SweepResult(study, hopeless=driver.hopeless), pool, screen.getvalue()


def test_a_sweep_whose_trials_all_crash_stops_and_has_no_winner(
    make_sweep: MakeSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_sweep("trials=40", "retries=1")
    result, pool, _ = driven(sweep, tmp_path / "out", "failed")
    assert pool.begun == 2 * HOPELESS
    assert result.study.best() is None
    assert result.best is None
    page = write_results(sweep, Folder(str(tmp_path / "out")), result)
    print_result(result, sweep.file, page, str(tmp_path / "out"))
    words = f"no trial is complete, and {HOPELESS} failed, the last because it fell over"
    assert words in capsys.readouterr().out
    assert words in Path(page).read_text()
    again, pool, _ = driven(sweep, tmp_path / "out", "failed")
    assert pool.begun == 2 * HOPELESS  # who has mended the cause can go on
    assert again.hopeless


def test_trials_whose_score_is_no_number_fail_and_cannot_win(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep("trials=4", "training.rounds=2")
    scores = iter([math.nan, 40.0, math.inf, 41.0])
    monkeypatch.setattr(trials, "state_of", lambda out, run: State(2, 2, done=True))
    monkeypatch.setattr(trials, "scores_of", lambda out, run: {"psnr": next(scores)})
    result, _, printed = driven(sweep, tmp_path / "out", "done")
    assert [state(result, n) for n in range(4)] == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert result.study.frozen(0).user_attrs[REASON] == "psnr is nan"
    best = result.study.best()
    assert best is not None
    assert best.values == [41.0]
    assert "trial-0002: fail: psnr is inf" in printed
    page = write_results(sweep, Folder(str(tmp_path / "out")), result)
    assert "psnr is nan" in Path(page).read_text()

"""Run a sweep: ask Optuna for trials, run each as a federation, tell what they gave, test the best.

Every run is a process of its own that joins the Ray cluster, so that one that fails takes no other
with it, and its hosts that die are replaced by its own rounds. This process alone writes the
study. Nothing else is kept that a restart would need.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from optuna.trial import TrialState

from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Experiment
from physfed_ray.suites.resources import alone, side_by_side
from physfed_ray.suites.state import state_of
from physfed_ray.suites.suite import SuiteRun, Variant
from physfed_ray.sweep.folder import STUDY
from physfed_ray.sweep.pool import Setup, TrialPool, Wanted
from physfed_ray.sweep.space import Sweep
from physfed_ray.sweep.study import ATTEMPTS, FINISHED, REASON, ROUNDS, SweepStudy
from physfed_ray.sweep.trials import TrialAtWork, trial_name, trial_runs

BASE, BEST = "base", "best"
"""Names of the runs of the final test."""
HOPELESS = 5
"""Trials that fail before anything else comes of one: the others would fail as well."""


@dataclass
class SweepResult:
    """What became of a sweep.

    Attributes:
        study: The study.
        out_of_time: Whether the time budget ended it.
        failed: Why a run of the final test is missing, by its name.
        best: The best trial's experiment, None where no trial is complete.
        finals: SuiteRun directories of the final test that are done, by the name of the run.
        hopeless: Whether it stopped because nothing but failures came.
    """

    study: SweepStudy
    out_of_time: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    best: Experiment | None = None
    finals: dict[str, str] = field(default_factory=dict)
    hopeless: bool = False

    @property
    def no_winner(self) -> str | None:
        """Why there is no best trial, None where there is one."""
        if self.study.best() is not None:
            return None
        failed = [t for t in self.study.trials if t.state == TrialState.FAIL]
        if not failed:
            return "there is no winner: no trial is complete"
        why = failed[-1].user_attrs.get(REASON, "no reason is known")
        stopped = f" The sweep stopped when its first {HOPELESS} trials had failed."
        return (
            f"there is no winner: no trial is complete, and {len(failed)} failed, the last because "
            f"{why}.{stopped * self.hopeless} Mend the cause, and go on with --resume."
        )


def run_sweep(
    sweep: Sweep, setup: Setup, on_event: Callable[[Event], None] = lambda event: None
) -> SweepResult:
    """Run what is left of a sweep, and test its best trial.

    Args:
        sweep: The sweep.
        setup: Where it runs.
        on_event: Receives ``trial``, ``progress``, ``told``, ``final`` and ``message`` events.

    Raises:
        PhysFedError: The folder holds another sweep, another process is at work on it, or there
            is no cluster.
    """
    # Idle OpenMP threads that spin would steal the cores from the other runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    folder = setup.folder
    with alone(folder.out):
        if folder.bring_study() and not setup.resume:
            raise PhysFedError(
                f"{folder.out} holds a sweep: add --resume to go on with it, or choose another "
                "--out"
            )
        path = folder.local / STUDY
        study = SweepStudy(sweep.file, path, sweep.settings(), lambda: folder.save(STUDY))
        address = _cluster(setup)
        jobs = _side_by_side(sweep, setup, address)
        pool = TrialPool(setup, address, jobs, on_event)
        try:
            driver = Driver(sweep, setup, study, pool, on_event)
            driver.run()
            result = SweepResult(study, driver.out_of_time, hopeless=driver.hopeless)
            _test(sweep, setup, pool, result, on_event)
        finally:
            pool.stop()
    return result


def _cluster(setup: Setup) -> str | None:
    """Join the cluster, or start one for all runs; return the address that they join."""
    if setup.runtime == "inline":
        return None
    import ray

    from physfed_ray.runtime.cluster import connect

    connect(setup.address)
    address: str = ray.get_runtime_context().gcs_address
    return address


def _side_by_side(sweep: Sweep, setup: Setup, address: str | None) -> int:
    """Return how many trials go side by side."""
    wanted = setup.jobs or sweep.file.concurrent
    if wanted != "auto":
        return wanted
    experiment = sweep.experiment({}, sweep.file.seeds[0])
    if setup.runtime == "inline":
        run = SuiteRun("", experiment)
        return side_by_side([Variant("", "", (run,), ())], None, "inline", address)
    from physfed_ray.runtime.cluster import alive_nodes, rooms_of

    nodes = alive_nodes()
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    if gpus:
        return max(1, int(gpus))
    rooms = sum(rooms_of(nodes, experiment.training.threads, False, 0))
    return max(1, rooms // len(experiment.clients))


class Driver:
    """Asks, runs and tells until all trials are accounted for, or the time is over.

    Args:
        sweep: The sweep.
        setup: Where it runs.
        study: Its study.
        pool: Does the runs.
        on_event: Receives events.
    """

    def __init__(
        self,
        sweep: Sweep,
        setup: Setup,
        study: SweepStudy,
        pool: TrialPool,
        on_event: Callable[[Event], None],
    ) -> None:
        self._sweep, self._setup, self._study = sweep, setup, study
        self._pool, self._on_event = pool, on_event
        self._metric = sweep.file.objectives[0]
        self._at_work: dict[str, TrialAtWork] = {}
        self._left = study.running()
        self._began = time.monotonic()
        self.out_of_time = False
        self._failed = self._other = 0

    @property
    def hopeless(self) -> bool:
        """Whether trials of this command have failed, and nothing else, so often as to stop."""
        return self._failed >= HOPELESS and not self._other

    def run(self) -> None:
        """Work until nothing is left to do."""
        values = self._sweep.base_values()
        if values is not None:
            self._study.enqueue(values)
        while True:
            self._fill()
            if not self._at_work:
                return
            self._pool.hear()
            if self._time_is_over() and not self.out_of_time:
                self.out_of_time = True
                for name in list(self._at_work):
                    self._pool.drop(name)
                self._at_work.clear()

    def _time_is_over(self) -> bool:
        budget = self._setup.time_budget_s
        return budget is not None and time.monotonic() - self._began >= budget

    def _fill(self) -> None:
        """Begin trials while there is room."""
        while self._pool.free > 0 and not self._time_is_over() and not self.hopeless:
            if self._left:
                trial, values = self._left.pop(0)
            elif self._study.count(*FINISHED) + len(self._at_work) < self._sweep.file.trials:
                trial, values = self._study.ask()
            else:
                return
            self._begin(trial, values)
        self.out_of_time |= self._time_is_over() and not self._complete()

    def _complete(self) -> bool:
        return not self._left and self._study.count(*FINISHED) >= self._sweep.file.trials

    def _begin(self, trial: Any, values: Mapping[str, Any]) -> None:
        file, name = self._sweep.file, self._sweep.file.sweep
        experiments = [self._sweep.experiment(values, seed, name) for seed in file.seeds]
        runs = trial_runs(trial.number, experiments)
        attempts = int(trial.user_attrs.get(ATTEMPTS, 0))
        at_work = TrialAtWork(trial, values, runs, self._setup.folder.out, attempts=attempts)
        self._at_work[at_work.name] = at_work
        self._on_event({"event": "trial", "name": at_work.name, "values": dict(values)})
        self._go_on(at_work)

    def _go_on(self, at_work: TrialAtWork) -> None:
        """Begin the trial's next run, or end the trial."""
        run = at_work.run
        if at_work.scores and self._report(at_work, at_work.value(self._metric), whole=True):
            return
        if run is None:
            self._tell(at_work, TrialState.COMPLETE)
            return
        self._pool.add(Wanted(at_work.name, run, False, lambda event: self._hear(at_work, event)))

    def _hear(self, at_work: TrialAtWork, event: Event) -> None:
        if at_work.name not in self._at_work:
            return
        match event["event"]:
            case "round":
                at_work.rounds = event["round"]
            case "evaluation" if event["split"] == "validation":
                at_work.rounds = event["round"]
                now = event.get(self._metric, math.nan)  # an optional one comes in the end
                if event["round"] < at_work.runs[0].experiment.training.rounds:
                    self._report(at_work, at_work.value(self._metric, now))
            case "end":
                self._end(at_work, event)

    def _report(self, at_work: TrialAtWork, value: float, *, whole: bool = False) -> bool:
        """Tell the pruner how a trial does; return whether it was stopped."""
        total = at_work.runs[0].experiment.training.rounds
        rounds = len(at_work.scores) * total + (0 if whole else at_work.rounds)
        if not math.isfinite(value):
            return False
        stop = self._study.report(at_work.trial, value, rounds)
        if not stop or rounds == len(at_work.runs) * total:
            return False
        self._pool.drop(at_work.name)
        self._tell(at_work, TrialState.PRUNED, f"after {rounds} rounds")
        return True

    def _end(self, at_work: TrialAtWork, event: Event) -> None:
        outcome, text = event["outcome"], event["text"]
        if outcome == "done":
            self._go_on(at_work)
        elif outcome == "diverged":
            several = len(self._sweep.file.objectives) > 1
            self._tell(at_work, TrialState.FAIL if several else TrialState.PRUNED, text)
        elif outcome == "no room" and len(self._at_work) > 1:  # the others will make some
            self._again(at_work, text)
        else:
            at_work.attempts += 1
            at_work.trial.set_user_attr(ATTEMPTS, at_work.attempts)
            if at_work.attempts > self._sweep.file.retries:
                self._tell(at_work, TrialState.FAIL, text)
            else:
                self._again(at_work, text)

    def _again(self, at_work: TrialAtWork, why: str) -> None:
        self._on_event({"event": "again", "name": at_work.name, "text": why})
        self._go_on(at_work)

    def _tell(self, at_work: TrialAtWork, state: TrialState, reason: str = "") -> None:
        del self._at_work[at_work.name]
        at_work.trial.set_user_attr(ROUNDS, at_work.rounds_done)
        complete = state == TrialState.COMPLETE
        values = at_work.objectives(self._sweep.file.objectives) if complete else None
        if values is not None and not all(map(math.isfinite, values)):
            pairs = zip(self._sweep.file.objectives, values, strict=True)
            reason = ", ".join(f"{name} is {v}" for name, v in pairs if not math.isfinite(v))
            state, values = TrialState.FAIL, None
        self._failed += state == TrialState.FAIL
        self._other += state != TrialState.FAIL
        self._study.tell(at_work.trial, state, values, reason)
        best = self._study.best()
        self._on_event(
            {
                "event": "told",
                "name": at_work.name,
                "state": state.name.lower(),
                "values": values,
                "reason": reason,
                "finished": self._study.count(*FINISHED),
                "best": None if best is None else (trial_name(best.number), best.values[0]),
            }
        )


def final_runs(sweep: Sweep, study: SweepStudy) -> dict[str, list[SuiteRun]]:
    """Return the runs that test the best trial and the base, none where no trial is complete."""
    best = study.best()
    if best is None:
        return {}
    wanted = {BASE: {}, BEST: study.values(best)}
    if wanted[BEST] == sweep.base_values():
        del wanted[BASE]
    runs: dict[str, list[SuiteRun]] = {}
    for kind, values in wanted.items():
        folder = kind if kind == BASE else f"{kind}-{best.number:04d}"
        experiments = [
            sweep.experiment(values, seed, f"{sweep.file.sweep}-{kind}")
            for seed in sweep.file.final_seeds
        ]
        runs[kind] = [SuiteRun(f"final/{folder}/seed{e.seed}", e) for e in experiments]
    return runs


def _test(
    sweep: Sweep,
    setup: Setup,
    pool: TrialPool,
    result: SweepResult,
    on_event: Callable[[Event], None],
) -> None:
    """Run the best trial and the base on test patients and unseen protocols."""
    wanted = final_runs(sweep, result.study)
    if BEST in wanted:
        result.best = wanted[BEST][0].experiment
    left: list[tuple[str, SuiteRun]] = []
    for kind, runs in wanted.items():
        for run in runs:
            name = f"{kind}-seed{run.experiment.seed}"
            if state_of(setup.folder.out, run).done:
                result.finals[name] = setup.folder.run(run.path)
            else:
                left.append((name, run))

    def hear(name: str, run: SuiteRun, event: Event) -> None:
        if event["event"] != "end":
            return
        outcome, text = event["outcome"], event["text"]
        if outcome == "done":
            result.finals[name] = setup.folder.run(run.path)
        else:
            result.failed[name] = text
        on_event({"event": "final", "name": name, "outcome": outcome, "text": text})

    while left or not pool.idle:
        while left and pool.free > 0:
            name, run = left.pop(0)
            pool.add(Wanted(name, run, True, partial(hear, name, run)))
        pool.hear()

"""What of a suite is there already, and which learning rates its trials say."""

import json
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from physfed_ray.rundir.long_table import METRICS_FILE
from physfed_ray.rundir.run_directory import LEARNING_RATES, RESULT_FILES, RunDirectory
from physfed_ray.runtime.begin import check_settings
from physfed_ray.suites.suite import Suite, SuiteRun, Variant


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        rounds: Completed rounds.
        total: Rounds it is to have.
        done: Whether it is complete, its page included.
        diverged: Whether it ended because its training diverged.
        seconds: Time of its rounds, where it is done.
    """

    rounds: int
    total: int
    done: bool = False
    diverged: bool = False
    seconds: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether doing it again would change nothing."""
        return self.done or self.diverged

    @property
    def words(self) -> str:
        """The state as a user reads it."""
        if self.done:
            return "done"
        if self.diverged:
            return f"diverged after round {self.rounds}"
        return f"interrupted after round {self.rounds}" if self.rounds else "missing"


@dataclass(frozen=True)
class Chosen:
    """What the trials of a method say of its learning rate.

    Attributes:
        seed: Seed of the trials.
        rounds: Rounds of the trials.
        scores: Validation PSNR in dB by learning rate, ascending; None where training diverged.
    """

    seed: int
    rounds: int
    scores: Mapping[float, float | None]

    @property
    def lr(self) -> float | None:
        """The best learning rate, the lowest of equally good ones; None where all diverged."""
        found = {lr: score for lr, score in self.scores.items() if score is not None}
        return max(found, key=lambda lr: (found[lr], -lr), default=None)

    @property
    def at_edge(self) -> bool:
        """Whether the best is the first or the last of the grid, so that it may lie outside."""
        rates = list(self.scores)
        return self.lr in (rates[0], rates[-1])


@dataclass(frozen=True)
class Standing:
    """Where a whole suite stands.

    Attributes:
        states: State of every run and trial, by path.
        chosen: What the trials say, by the name of the variant, where they are all settled.
    """

    states: Mapping[str, State]
    chosen: Mapping[str, Chosen]


def standing(suite: Suite, out: str) -> Standing:
    """Read how far every run and trial of a suite is.

    Raises:
        PhysFedError: A folder holds a run with other settings.
    """
    states: dict[str, State] = {}
    chosen: dict[str, Chosen] = {}
    for variant in suite.variants:
        states |= {trial.path: state_of(out, trial) for trial in variant.trials}
        found = choose(out, variant, states)
        if found is not None:
            chosen[variant.name] = found
        for run in variant.runs:
            rate = found.lr if found else _begun_with(out, run, variant)
            states[run.path] = state_of(out, run if rate is None else run.at(rate))
    return Standing(states, chosen)


def state_of(out: str, run: SuiteRun) -> State:
    """Return how far a run is.

    Args:
        out: The suite's folder, a local path or an fsspec URL.
        run: One of its runs or trials.

    Raises:
        PhysFedError: Its folder holds a run with other settings.
    """
    total = run.experiment.training.rounds
    with closing(RunDirectory(f"{out}/{run.path}")) as directory:
        if not directory.has("experiment.yaml"):
            return State(0, total)
        check_settings(directory, run.experiment)
        recorded = directory.read_yaml("experiment.yaml").get("evaluation") or {}
        unmeasured = {*run.experiment.evaluation.metrics} - {*recorded.get("metrics", ())}
        manifest = directory.last_manifest(readable=True)
        rounds = manifest.round if manifest else 0
        last = _last_event(directory)
        if last == "diverged":
            return State(rounds, total, diverged=True)
        if rounds < total or last != "done" or unmeasured or directory.problems(RESULT_FILES):
            return State(rounds, total)  # whatever is damaged or missing, the run writes anew
        summary = directory.read_json("summary.json")
    return State(rounds, total, done=True, seconds=float(summary["wall_s"]))


def _last_event(directory: RunDirectory) -> str | None:
    """Return the last event of a run's log: ``done`` comes after its page, and only then."""
    if not directory.exists("run.log"):
        return None
    lines = directory.read("run.log").splitlines()
    try:
        return str(json.loads(lines[-1])["event"])
    except (IndexError, KeyError, ValueError):  # a line that a kill has cut off
        return None


def mark_diverged(root: str, why: str) -> None:
    """Write into a run's log that its training diverged, which it would do again."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    entry = {"time": stamp, "event": "diverged", "text": why}
    with closing(RunDirectory(root)) as directory:
        directory.append_line("run.log", json.dumps(entry))


def _begun_with(out: str, run: SuiteRun, variant: Variant) -> float | None:
    """Return the rate of the grid that a run was begun with before its trials were deleted."""
    grid = [trial.experiment.training.lr for trial in variant.trials]
    with closing(RunDirectory(f"{out}/{run.path}")) as directory:
        if not grid or not directory.has("experiment.yaml"):
            return None
        rate = float(directory.read_yaml("experiment.yaml")["training"]["lr"])
    return rate if rate in grid else None


def choose(out: str, variant: Variant, states: Mapping[str, State]) -> Chosen | None:
    """Return what a variant's trials say.

    Args:
        out: The suite's folder.
        variant: A method on a backbone.
        states: States of its trials, by path.

    Returns:
        None where it has no trials, or one of them is not settled.
    """
    if not variant.trials or not all(states[trial.path].settled for trial in variant.trials):
        return None
    scores = {
        trial.experiment.training.lr: (
            validation_psnr(out, trial) if states[trial.path].done else None
        )
        for trial in variant.trials
    }
    first = variant.trials[0].experiment
    return Chosen(first.seed, first.training.rounds, scores)


def validation_psnr(out: str, trial: SuiteRun) -> float | None:
    """Return a complete trial's PSNR on validation patients after its last round.

    The mean over the clients of each one's mean over slices, in dB; None where it is not finite.
    """
    with closing(RunDirectory(f"{out}/{trial.path}")) as directory:
        rows = directory.read_table(METRICS_FILE).rows()
    last = trial.experiment.training.rounds
    found = [
        value
        for number, _, split, metric, value in rows
        if (number, split, metric) == (last, "validation", "psnr")
    ]
    mean = sum(found) / len(found)
    return mean if math.isfinite(mean) else None


def record(out: str, variant: Variant, chosen: Chosen) -> None:
    """Write a choice into ``learning_rates.json``, beside those of the other methods."""
    with closing(RunDirectory(out)) as directory:
        known = {}
        # Every variant's choice is written again by each command, so a damaged file is no loss.
        if not directory.problems([LEARNING_RATES]) and directory.exists(LEARNING_RATES):
            known = directory.read_json(LEARNING_RATES)
        known[variant.name] = {
            "seed": chosen.seed,
            "rounds": chosen.rounds,
            "validation_psnr": {f"{lr:g}": score for lr, score in chosen.scores.items()},
            "chosen": chosen.lr,
        }
        directory.write_json(LEARNING_RATES, known)

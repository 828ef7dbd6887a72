"""One trial at work: its seeds one after the other, each a run with its own directory."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import optuna

from physfed_ray.experiment import Experiment
from physfed_ray.rundir.long_table import METRICS_FILE
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.suites.state import state_of
from physfed_ray.suites.suite import SuiteRun

TrialScores = Mapping[str, float]


@dataclass
class TrialAtWork:
    """A trial that has begun, or that an earlier command has left.

    Attributes:
        trial: Optuna's view of it.
        values: Its values.
        runs: One a seed.
        out: Folder of the sweep.
        scores: Of the seeds that are done, in order.
        attempts: Times that a run of it has failed.
        rounds: Completed rounds of the seed at work.
    """

    trial: optuna.Trial
    values: Mapping[str, Any]
    runs: Sequence[SuiteRun]
    out: str
    scores: list[TrialScores] = field(default_factory=list)
    attempts: int = 0
    rounds: int = 0

    @property
    def name(self) -> str:
        """Its folder below ``trials``."""
        return trial_name(self.trial.number)

    @property
    def run(self) -> SuiteRun | None:
        """The first run that is not done; None when all are. Collects the scores of the others."""
        while len(self.scores) < len(self.runs):
            run = self.runs[len(self.scores)]
            state = state_of(self.out, run)
            self.rounds = state.rounds
            if not state.done:
                return run
            self.scores.append(scores_of(self.out, run))
        return None

    @property
    def rounds_done(self) -> int:
        """Completed rounds over all of its seeds."""
        total = self.runs[0].experiment.training.rounds
        if len(self.scores) == len(self.runs):
            return len(self.runs) * total
        return len(self.scores) * total + self.rounds

    def value(self, metric: str, now: float | None = None) -> float:
        """Return the mean of a score over the seeds so far.

        Args:
            metric: Name of the score.
            now: The score of the seed at work, which counts as one.
        """
        found = [scores[metric] for scores in self.scores]
        return mean(found if now is None else [*found, now])

    def objectives(self, names: Sequence[str]) -> list[float]:
        """Return the values of all objectives once every seed is done."""
        return [self.value(name) for name in names]


def trial_name(number: int) -> str:
    """Return the name of a trial's folder."""
    return f"trial-{number:04d}"


def trial_runs(number: int, experiments: Sequence[Experiment]) -> list[SuiteRun]:
    """Return the runs of a trial, one for each of its experiments."""
    return [SuiteRun(f"trials/{trial_name(number)}/seed{e.seed}", e) for e in experiments]


def scores_of(out: str, run: SuiteRun) -> dict[str, float]:
    """Return what a complete run says of each objective.

    Metrics, as they are stored, are means over the clients of each one's mean over the validation
    slices after the last round; bytes are those of the last round, of all clients, both ways.
    """
    with closing(RunDirectory(f"{out}/{run.path}")) as directory:
        rows = directory.read_table(METRICS_FILE).rows()
        summary = directory.read_json("summary.json")
    last = run.experiment.training.rounds
    found: dict[str, list[float]] = {}
    for number, _, split, metric, value in rows:
        if (number, split) == (last, "validation"):
            found.setdefault(metric, []).append(value)
    scores = {name: mean(values) for name, values in found.items()}
    parameters = summary["parameters"]
    return scores | {
        "bytes_per_round": float(sum(summary["bytes_per_round"].values())),
        "shared_parameters": float(parameters["shared"]),
        "parameters": float(parameters["shared"] + parameters["private"]),
    }

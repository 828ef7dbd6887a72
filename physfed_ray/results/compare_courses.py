"""What the figures of a comparison are drawn from: courses of training, and scores of slices."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from physfed_ray.results.compare_tables import Comparison
from physfed_ray.results.groups import Group
from physfed_ray.results.run_tables import WHOLE
from physfed_ray.results.runs import RunResults, mean_curve

_MB = 1e6


@dataclass(frozen=True)
class Course:
    """How a method's scores rose, mean over its seeds.

    Attributes:
        rounds: (points,) at which it was scored.
        sent: (points,) MB sent until then in both directions, all clients.
        seconds: (points,) of training until then.
        scores: Mean and standard deviation over seeds by metric, (points,) each.
    """

    rounds: NDArray[np.float64]
    sent: NDArray[np.float64]
    seconds: NDArray[np.float64]
    scores: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=dict
    )


def courses(comparison: Comparison, split: str) -> dict[str, Course]:
    """Return the course of every method that was scored during training.

    Args:
        comparison: The methods.
        split: Whose scores, "validation" or "test".
    """
    found = {group.label: _course(group, split) for group in comparison.groups}
    return {label: course for label, course in found.items() if course is not None}


def _course(group: Group, split: str) -> Course | None:
    """Average over the seeds, at the rounds at which all of them were scored.

    The time is the median over the seeds: a run that was suspended for a while says little.
    """
    curves = {
        column.metric: [dict(zip(*mean_curve(run.curve(split, column.metric)), strict=True))
                        for run in group.runs]
        for column in WHOLE
    }  # fmt: skip
    rounds = sorted(set.intersection(*(set(c) for seeds in curves.values() for c in seeds)))
    if not rounds:
        return None
    scores = {}
    for column in WHOLE:
        values = column.scale * np.array([[c[r] for r in rounds] for c in curves[column.metric]])
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(rounds))
        scores[column.metric] = values.mean(axis=0), spread
    sent = [
        spent_until(run, "bytes_down", rounds) + spent_until(run, "bytes_up", rounds)
        for run in group.runs
    ]
    seconds = [spent_until(run, "seconds", rounds) for run in group.runs]
    return Course(
        np.array(rounds, np.float64),
        np.mean(sent, axis=0) / _MB,
        np.median(seconds, axis=0),
        scores,
    )


def spent_until(run: RunResults, metric: str, rounds: Sequence[int]) -> NDArray[np.float64]:
    """Return the sum of a system metric over all rounds up to each of the given ones, (rounds,)."""
    numbers, values = run.curve("system", metric).get("server", ([], []))
    totals = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(totals[np.searchsorted(numbers, rounds, side="right")])


def courses_csv(found: Mapping[str, Course]) -> str:
    """Return one line a method and scored round: round, bytes, time and scores."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [name for c in WHOLE for name in (c.metric, f"{c.metric}_sd_over_seeds")]
    writer.writerow(["method", "round", "megabytes_sent", "training_seconds", *names])
    for label, course in found.items():
        for k, number in enumerate(course.rounds):
            scores = [f"{part[k]:.6g}" for c in WHOLE for part in course.scores[c.metric]]
            spent = (f"{course.sent[k]:.6g}", f"{course.seconds[k]:.6g}")
            writer.writerow([label, int(number), *spent, *scores])
    return out.getvalue()


def slice_scores(comparison: Comparison) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return the scores of all test slices of all clients and seeds: metric, then method."""
    panels = {}
    for column in WHOLE:
        rows = {"Input": _values(comparison.inputs, "test/input", column.metric)}
        for group in comparison.groups:
            rows[group.label] = _values(group.runs, "test", column.metric)
        panels[column.labelled] = {
            label: column.scale * values for label, values in rows.items() if len(values)
        }
    return panels


def _values(runs: Sequence[RunResults], split: str, metric: str) -> NDArray[np.float64]:
    return np.concatenate([run.slices.where(split=split, metric=metric).values for run in runs])

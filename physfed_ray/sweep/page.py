"""What a sweep leaves to read: ``sweep.html``, its tables and figures, and ``best.yaml``."""

import base64
import csv
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from physfed_ray.atomic import atomic_file
from physfed_ray.data.pseudonyms import pseudonymous, pseudonymous_command
from physfed_ray.metrics.registry import HEADLINE, owner
from physfed_ray.pages import render
from physfed_ray.pages.figures import png
from physfed_ray.results.pairing import pair
from physfed_ray.results.run_tables import WHOLE, column_of
from physfed_ray.results.runs import RunResults, read_results
from physfed_ray.results.tables import Column
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.sweep import figures as draw
from physfed_ray.sweep.driver import BASE, BEST, SweepResult
from physfed_ray.sweep.figures import Tried
from physfed_ray.sweep.file import value_words
from physfed_ray.sweep.folder import STUDY, Folder
from physfed_ray.sweep.objectives import find_objective
from physfed_ray.sweep.space import Sweep
from physfed_ray.sweep.study import FINISHED, REASON, ROUNDS, SweepStudy
from physfed_ray.sweep.trials import trial_name

PAGE = "sweep.html"
FEWEST_FOR_IMPORTANCES = 6
STATES: dict[TrialState, draw.State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclass(frozen=True)
class Final:
    """The best against the base in one measure, over the fresh seeds.

    Attributes:
        where: Whose images.
        measure: What is measured.
        rows: Name, mean and spread over the seeds.
        verdict: The paired difference in words.
    """

    where: str
    measure: str
    rows: tuple[tuple[str, str], ...]
    verdict: str


def write_results(sweep: Sweep, folder: Folder, result: SweepResult, command: str = "") -> str:
    """Write the page, its figures and tables, and the best trial's experiment.

    Args:
        sweep: The sweep.
        folder: Where it lies.
        result: What became of it.
        command: The command line, for the record.

    Returns:
        The page, a local path or an fsspec URL.
    """
    study, file, out = result.study, sweep.file, folder.local
    trials = tried(study)
    _write(out / "tables" / "trials.csv", trials_csv(sweep, trials))
    found = importances(study)
    _write(out / "tables" / "importances.csv", _csv(["parameter", "share"], found.items()))
    if result.best is not None:
        _write(out / "best.yaml", pseudonymous(result.best).to_yaml())
    for trial in study.front():
        experiment = pseudonymous(sweep.experiment(study.values(trial), file.final_seeds[0]))
        _write(out / "front" / f"{trial_name(trial.number)}.yaml", experiment.to_yaml())
    pictures = _figures(sweep, study, trials, found)
    for name, content in pictures.items():
        with atomic_file(out / "figures" / f"{name}.png") as path:
            path.write_bytes(content)
    _write_hparams(folder, sweep, trials)
    page = {
        "title": file.sweep,
        "command": pseudonymous_command(command),
        "numbers": _numbers(sweep, study, trials),
        "notes": [*sweep.notes, *_notes(sweep, result, trials)],
        "best": _best(sweep, study),
        "finals": final_comparison(sweep, result),
        "failed": result.failed,
        "pictures": {k: base64.b64encode(v).decode() for k, v in pictures.items()},
        "importances": found,
        "rows": _rows(sweep, trials),
        "headings": [
            "trial",
            "state",
            *(find_objective(name).labelled for name in file.objectives),
            *file.space,
            "rounds",
            "why",
        ],
        "space": [(key, p.words, p.when) for key, p in file.space.items()],
        "settings": _settings(sweep),
        "out": folder.out,
        "study": str(out / STUDY),
    }
    _write(out / PAGE, render(PAGE, **page))
    folder.save(STUDY, PAGE, "best.yaml", "tables", "figures", "front", "logs")
    return folder.run(PAGE)


def tried(study: SweepStudy) -> list[Tried]:
    """Return the trials of a study that have begun."""
    return [_tried(study, trial) for trial in study.trials if trial.state in STATES]


def _tried(study: SweepStudy, trial: FrozenTrial) -> Tried:
    complete = trial.state == TrialState.COMPLETE
    course = trial.intermediate_values
    return Tried(
        number=trial.number,
        state=STATES[trial.state],
        values=study.values(trial),
        objectives=tuple(trial.values) if complete else (),
        course=course,
        rounds=int(trial.user_attrs.get(ROUNDS, max(course, default=0))),
        reason=str(trial.user_attrs.get(REASON, "")),
    )


def importances(study: SweepStudy) -> dict[str, float]:
    """Return the share of the first objective's variance that each parameter explains (fANOVA).

    From complete trials, and of the parameters that all of those have; empty where too few are
    complete, or all gave the same.
    """
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if len(done) < FEWEST_FOR_IMPORTANCES or len({trial.values[0] for trial in done}) < 2:
        return {}
    try:
        return dict(
            optuna.importance.get_param_importances(
                study.study,
                evaluator=FanovaImportanceEvaluator(seed=0),
                target=lambda trial: trial.values[0],
            )
        )
    except (ValueError, RuntimeError):  # all trials have one value of each
        return {}


def rounds_saved(sweep: Sweep, trials: Sequence[Tried]) -> float:
    """Return the share of the rounds of all finished trials that pruning has left out."""
    full = len(sweep.file.seeds) * sweep.experiment({}, sweep.file.seeds[0]).training.rounds
    ended = [trial for trial in trials if trial.state in ("complete", "pruned")]
    if not ended or "training.rounds" in sweep.file.space:
        return 0.0
    return 1 - sum(trial.rounds for trial in ended) / (full * len(ended))


def trials_csv(sweep: Sweep, trials: Sequence[Tried]) -> str:
    """Return every trial as a line: state, objectives, values, rounds, why it ended."""
    file = sweep.file
    headings = ["trial", "state", *file.objectives, "last_value", *file.space, "rounds", "reason"]
    lines = []
    for trial in trials:
        objectives = trial.objectives or ("",) * len(file.objectives)
        values = [trial.values.get(key, "") for key in file.space]
        last = "" if math.isnan(trial.last) else trial.last
        lines.append(
            [trial.number, trial.state, *objectives, last, *values, trial.rounds, trial.reason]
        )
    return _csv(headings, lines)


def final_comparison(sweep: Sweep, result: SweepResult) -> list[Final]:
    """Compare the best trial with the base on test patients, with fresh seeds."""
    by_kind: dict[str, list[RunResults]] = {BEST: [], BASE: []}
    for name, path in sorted(result.finals.items()):
        by_kind[name.partition("-")[0]].append(read_results(path))
    kinds = {kind: runs for kind, runs in by_kind.items() if runs}
    if BEST not in kinds:
        return []
    places = [("the clients' own protocols", ["test"] * 2)]
    served = [_served(kinds[kind][0]) for kind in kinds]
    if all(served):
        places.append(("unseen protocols", [f"unseen/{policy}" for policy in served]))
    found = []
    for where, splits in places:
        for column in _measures(sweep.file.objectives):
            digits = column.decimals + 1
            scores = {
                kind: {
                    (run.seed, client): column.scale * value
                    for run in runs
                    for client, value in run.client_means(split, column.metric).items()
                }
                for (kind, runs), split in zip(kinds.items(), splits, strict=False)
            }
            rows = tuple((kind, _spread(values, digits)) for kind, values in scores.items())
            found.append(Final(where, column.labelled, rows, _verdict(scores, digits)))
    return found


def _measures(objectives: Sequence[str]) -> list[Column]:
    """Return what the final test compares: the headline's metrics, and the objectives' own."""
    found = {name: owner(name) for name in objectives if name not in HEADLINE}
    return [*WHOLE, *(column_of(own[1], name) for name, own in found.items() if own)]


def _served(run: RunResults) -> str | None:
    """Return the policy under which a method serves unseen protocols without an oracle."""
    order = ("shared", "pvqs", "nearest_protocol")
    return next((policy for policy in order if policy in run.policies), None)


def _spread(scores: Mapping[tuple[int, str], float], digits: int) -> str:
    seeds = sorted({seed for seed, _ in scores})
    means = [np.mean([v for (s, _), v in scores.items() if s == seed]) for seed in seeds]
    if len(means) < 2:
        return f"{means[0]:.{digits}f}"
    return f"{np.mean(means):.{digits}f} ± {np.std(means, ddof=1):.{digits}f}"


def _verdict(scores: Mapping[str, Mapping[tuple[int, str], float]], digits: int) -> str:
    if BASE not in scores:
        return "the best trial is the base itself"
    found = pair(scores[BEST], scores[BASE])
    if found is None:
        return ""
    p = "" if math.isnan(found.p) else f", p = {found.p:.2g}"
    return (
        f"{found.difference:+.{digits}f}, higher in {found.wins} of {found.pairs} pairs of seed "
        f"and protocol{p}"
    )


def _figures(
    sweep: Sweep, study: SweepStudy, trials: Sequence[Tried], found: Mapping[str, float]
) -> dict[str, bytes]:
    """Return the figures that there is something to draw for."""
    file = sweep.file
    first = file.objectives[0]
    drawn = {}
    if any(not math.isnan(trial.last) for trial in trials):
        drawn["history"] = draw.history(trials, first)
        drawn["slices"] = draw.slices(trials, file.space, first)
    if any(trial.course for trial in trials):
        drawn["courses"] = draw.courses(trials, first)
    if any(trial.objectives for trial in trials):
        drawn["parallel"] = draw.parallel(trials, file.space, first)
        if len(file.objectives) > 1:
            best = [trial.number for trial in study.front()]
            drawn["front"] = draw.front(trials, best, file.objectives)
    if found:
        drawn["importances"] = draw.importances(found)
    return {name: png(figure) for name, figure in drawn.items()}


def _numbers(sweep: Sweep, study: SweepStudy, trials: Sequence[Tried]) -> list[tuple[str, str]]:
    counts = [f"{n} {s}" for s in ("complete", "pruned", "failed", "running")
              if (n := sum(trial.state == s for trial in trials))]  # fmt: skip
    tiles = [(str(study.count(*FINISHED)), f"of {sweep.file.trials} trials: {', '.join(counts)}")]
    best = study.best()
    if best is not None:
        name = sweep.file.objectives[0]
        first = find_objective(name)
        tiles.append((first.text(best.values[0]), f"{first.labelled} of the best, trial "
                      f"{best.number}, on validation patients"))  # fmt: skip
    base = next((t for t in trials if t.number == 0 and t.objectives), None)
    if base is not None and base.values == sweep.base_values():
        name = sweep.file.objectives[0]
        first = find_objective(name)
        tiles.append((first.text(base.objectives[0]), "with the base's own values, trial 0"))
    rounds = sum(trial.rounds for trial in trials)
    saved = rounds_saved(sweep, trials)
    note = f"; pruning saved {100 * saved:.0f}% of those of the trials" if saved > 0 else ""
    tiles.append((f"{rounds:,}", f"rounds were trained{note}"))
    return tiles


def _notes(sweep: Sweep, result: SweepResult, trials: Sequence[Tried]) -> list[str]:
    notes = []
    if result.no_winner is not None and trials:
        notes.append(result.no_winner[0].upper() + result.no_winner[1:])
    if result.out_of_time:
        notes.append("The time budget ended this sweep; --resume goes on with it.")
    if sweep.base_values() is None:
        notes.append("The base's own values lie outside the space: no trial has them.")
    done = sum(trial.state == "complete" for trial in trials)
    if 0 < done < FEWEST_FOR_IMPORTANCES:
        notes.append(f"Only {done} trials are complete: too few for importances.")
    return notes


def _best(sweep: Sweep, study: SweepStudy) -> list[tuple[str, str, str]]:
    """Return each parameter's best value beside the base's."""
    best = study.best()
    if best is None:
        return []
    own = sweep.base_values() or {}
    values = study.values(best)
    return [
        (key, value_words(values[key]) if key in values else "–",
         value_words(own[key]) if key in own else "–")
        for key in sweep.file.space
    ]  # fmt: skip


def _rows(sweep: Sweep, trials: Sequence[Tried]) -> list[list[str]]:
    """Return the trials as a page shows them, the best first."""
    file = sweep.file
    goals = [find_objective(name) for name in file.objectives]
    order = sorted(
        trials,
        key=lambda t: (
            t.state != "complete",
            -goals[0].worth(t.last) if t.course or t.objectives else math.inf,
            t.number,
        ),
    )
    rows = []
    for trial in order:
        objectives = [goal.text(v) for goal, v in zip(goals, trial.objectives, strict=False)]
        objectives += ["–"] * (len(file.objectives) - len(objectives))
        values = [value_words(trial.values[k]) if k in trial.values else "–" for k in file.space]
        rows.append(
            [str(trial.number), trial.state, *objectives, *values, str(trial.rounds), trial.reason]
        )
    return rows


def _settings(sweep: Sweep) -> list[tuple[str, str]]:
    file = sweep.file
    base = sweep.experiment({}, file.seeds[0])
    return [
        ("base", f"{base.name}, {base.method.name}"),
        ("rounds of a run", str(base.training.rounds)),
        ("seeds of a trial", ", ".join(map(str, file.seeds))),
        ("seeds of the test", ", ".join(map(str, file.final_seeds))),
        ("sampler", _words(file.sampler.model_dump())),
        ("pruner", _words(file.pruner.model_dump())),
        ("clients", str(len(base.clients))),
    ]


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _write_hparams(folder: Folder, sweep: Sweep, trials: Sequence[Tried]) -> None:
    """Write each complete trial's values and results for TensorBoard's tab of hyperparameters."""
    from torch.utils.tensorboard import SummaryWriter

    for trial in trials:
        place = folder.run(f"trials/{trial_name(trial.number)}/hparams")
        with closing(RunDirectory(place)) as directory:
            if not trial.objectives or directory.exists("written"):
                continue
            values = {
                key: value if isinstance(value, int | float | bool | str) else str(value)
                for key, value in trial.values.items()
            }
            results = {
                f"sweep/{name}": value
                for name, value in zip(sweep.file.objectives, trial.objectives, strict=True)
            }
            with SummaryWriter(place) as writer:
                writer.add_hparams(values, results, run_name=".")
            directory.write("written", b"")


def _csv(headings: Sequence[str], lines: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(lines)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

"""A sweep as a user sees it: a line for each trial, what the best is, what was tested."""

from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from physfed_ray.events import PREPARING, Event
from physfed_ray.screen.suite import LinesDisplay
from physfed_ray.sweep.driver import SweepResult
from physfed_ray.sweep.file import SweepFile, value_words
from physfed_ray.sweep.objectives import find_objective
from physfed_ray.sweep.pool import DATA
from physfed_ray.sweep.space import Sweep, Values
from physfed_ray.words import duration


def values_line(values: Values) -> str:
    """Return a trial's values as one line."""
    return ", ".join(f"{key} = {value_words(value)}" for key, value in values.items())


def objective_words(name: str, value: float) -> str:
    """Return the value of an objective with its unit."""
    objective = find_objective(name)
    return f"{name} {objective.text(value)} {objective.unit}".rstrip()


class SweepDisplay(LinesDisplay):
    """Lines of what begins, ends and fails; in a terminal, the trials at work below them.

    Args:
        file: The sweep's keys.
        console: Where to print.
    """

    def __init__(self, file: SweepFile, console: Console | None = None) -> None:
        super().__init__(console)
        self._file = file
        self._at_work: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Show an event of ``run_sweep``."""
        name = event["name"]
        match event["event"]:
            case "trial":
                self.print(f"{name}: {values_line(event['values'])}")
            case "again":
                self.print(f"{name}: {event['text']}; begun again")
            case "told":
                self._told(name, event)
            case "final":
                text = f": {event['text']}" if event["text"] else ""
                self._at_work.pop(name, None)
                self.print(f"{name}: {event['outcome']}{text}")
            case "progress":
                self._progress(name, event["inner"])
        self.below(self._at_work.values())

    def _progress(self, name: str, inner: Event) -> None:
        line = None
        match inner["event"]:
            case kind if kind in PREPARING and name == DATA:
                line = f"{name}: {inner['done']}/{inner['total']} {PREPARING[kind]}"
            case "round":
                left = duration(inner["eta_s"])
                line = f"{name}: round {inner['round']}/{inner['rounds']}, {left} left"
            case "end":
                self._at_work.pop(name, None)
        if line is None:
            return
        self._at_work[name] = line
        self.now_and_then(name, line)

    def _told(self, name: str, event: Event) -> None:
        self._at_work.pop(name, None)
        first, best = self._file.objectives[0], ""
        if event["best"] is not None:
            of, value = event["best"]
            best = (
                "; the best so far"
                if of == name
                else f"; best {objective_words(first, value)}, {of}"
            )
        count = f"({event['finished']} of {self._file.trials} done{best})"
        if event["values"] is None:
            self.print(f"{name}: {event['state']}: {event['reason']} {count}")
            return
        pairs = zip(self._file.objectives, event["values"], strict=True)
        self.print(f"{name}: {', '.join(objective_words(*pair) for pair in pairs)} {count}")


def print_plan(
    sweep: Sweep, out: str, seconds: float | None = None, console: Console | None = None
) -> None:
    """Print what a sweep does.

    Args:
        sweep: The sweep.
        out: Its folder.
        seconds: Time of a run on this machine, where it is estimated.
        console: Where to print.
    """
    console = console or Console()
    file = sweep.file
    first = sweep.experiment({}, file.seeds[0])
    own = sweep.base_values()
    for note in sweep.notes:
        console.print(Text(note), soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("parameter", "may be", "of the base", "only when"):
        table.add_column(heading)
    for key, parameter in file.space.items():
        mine = "" if own is None or key not in own else value_words(own[key])
        when = ", ".join(f"{other} = {wanted}" for other, wanted in parameter.when.items())
        table.add_row(key, parameter.words, mine, when)
    console.print(f"[bold]{file.sweep}[/bold] in {out}", highlight=False)
    console.print(table, highlight=False)
    rounds = len(file.seeds) * first.training.rounds
    per_trial = f"{rounds} rounds" + (f" over {len(file.seeds)} seeds" * (len(file.seeds) > 1))
    lines = [
        f"objectives: {', '.join(file.objectives)}, on validation patients",
        f"{file.trials} trials of {per_trial}, {file.trials * rounds} in all without pruning; "
        f"sampler {file.sampler.name}, pruner {file.pruner.name}",
        f"each trial: {len(first.clients)} clients, {first.data.image_size} x "
        f"{first.data.image_size} pixels, {first.backbone.make().label}, batches of "
        f"{first.training.batch_size}",
        f"then the best and the base on test patients, with seeds "
        f"{', '.join(map(str, file.final_seeds))}",
    ]
    if seconds is not None:
        whole = duration(seconds * len(file.seeds) * file.trials)
        lines.append(
            f"time: about {duration(seconds)} of training for a run that has this machine to "
            f"itself, {whole} for all trials without pruning"
        )
    if own is None:
        lines.append("the base's own values lie outside the space, so that no trial has them")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def print_result(result: SweepResult, file: SweepFile, page: str, out: str) -> None:
    """Print what a sweep has found, where it is, and what failed.

    Args:
        result: What became of it.
        file: The sweep's keys.
        page: Its page.
        out: Its folder.
    """
    console = Console(highlight=False)
    study = result.study
    states = {
        "complete": study.count(TrialState.COMPLETE),
        "pruned": study.count(TrialState.PRUNED),
        "failed": study.count(TrialState.FAIL),
        "interrupted": study.count(TrialState.RUNNING),
    }
    lines = [", ".join(f"{count} {name}" for name, count in states.items() if count)]
    best = study.best()
    if best is not None:
        pairs = zip(file.objectives, best.values, strict=True)
        words = ", ".join(objective_words(*pair) for pair in pairs)
        lines.append(f"best: trial {best.number}, {words}: {values_line(study.values(best))}")
    if result.no_winner is not None:
        lines.append(result.no_winner)
    lines += [f"failed: {name}: {why}" for name, why in result.failed.items()]
    if result.out_of_time:
        lines.append("the time is over; --resume goes on")
    lines.append(f"page: {page}")
    if best is not None:
        lines.append(f"the best trial as an experiment: {out}/best.yaml")
    for line in lines:
        console.print(Text(line), soft_wrap=True)

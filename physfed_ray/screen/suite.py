"""A suite as a user sees it: a line for each run, the learning rates, what failed."""

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from physfed_ray.events import PREPARING, Event
from physfed_ray.words import duration

if TYPE_CHECKING:
    from physfed_ray.suites.run import SuiteResult
    from physfed_ray.suites.state import Chosen, Standing
    from physfed_ray.suites.suite import Suite

QUIET_S = 60.0
"""Seconds between two lines about the same run where the output is not a terminal."""


def counts_line(event: Event) -> str:
    """Return the counts of an event as one line: ``12 of 84 done, 2 running, 70 left``."""
    parts = [f"{event['done']} of {event['of']} done", f"{event['running']} running"]
    parts.append(f"{event['left']} left")
    if event["failed"]:
        parts.append(f"{event['failed']} failed")
    if event["eta_s"] is not None and event["running"] + event["left"]:
        parts.append(f"about {duration(event['eta_s'])} to go")
    return ", ".join(parts)


def task_line(event: Event) -> str:
    """Return how far a run or a preparation is, as one line."""
    inner = event["inner"] or {}
    if (what := PREPARING.get(inner.get("event", ""))) is not None:
        return f"{event['name']}: {inner['done']}/{inner['total']} {what}"
    if not event["total"]:
        return f"{event['name']}: begun"
    line = f"{event['name']}: round {event['rounds']}/{event['total']}, lr {event['lr']:g}"
    return f"{line}, {duration(inner['eta_s'])} left" if "eta_s" in inner else line


class LinesDisplay(AbstractContextManager["LinesDisplay"]):
    """Printed lines, and in a terminal a line for each run at work below them.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=False, highlight=False)
        self._shown: dict[str, float] = {}
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        """Start drawing, in a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing; the printed lines stay."""
        self._live.stop()

    def print(self, line: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(line), soft_wrap=True)

    def below(self, lines: Iterable[str]) -> None:
        """Draw the lines of what is at work, in a terminal."""
        self._live.update(Group(*map(Text, lines)))

    def now_and_then(self, name: str, line: str) -> None:
        """Print a line about a run where nothing can be drawn, unless another was just printed."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._shown.get(name, 0.0) >= QUIET_S:
            self._shown[name] = now
            self.print(line)

    def printed(self, name: str) -> None:
        """Note that a line about a run was just printed."""
        self._shown[name] = time.monotonic()


class SuiteDisplay(LinesDisplay):
    """Lines of what begins, ends and fails; in a terminal, the runs at work below them.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._at_work: dict[str, Event] = {}

    def __call__(self, event: Event) -> None:
        """Show an event of ``run_suite``."""
        match event["event"]:
            case "chosen":
                self.print(chosen_line(event["variant"].label, event["chosen"]))
                return
            case "begin":
                self._at_work[event["name"]] = event
                self.print(f"{task_line(event)} ({counts_line(event)})")
                self.printed(event["name"])
            case "progress":
                self._at_work[event["name"]] = event
                self.now_and_then(event["name"], task_line(event))
            case "end":
                self._at_work.pop(event["name"], None)
                took = f"{event['words']} in {duration(event['seconds'])}"
                self.print(f"{event['name']}: {took} ({counts_line(event)})")
            case "failed":
                self._at_work.pop(event["name"], None)
                self.print(f"{event['name']}: failed: {event['text']}")
        self.below([*map(task_line, self._at_work.values()), counts_line(event)])


def chosen_line(label: str, chosen: "Chosen") -> str:
    """Return what the trials of a method say, as one line."""
    scores = ", ".join(
        f"{lr:g}: " + ("diverged" if score is None else f"{score:.2f} dB")
        for lr, score in chosen.scores.items()
    )
    if chosen.lr is None:
        return f"{label}: no learning rate, all trials diverged ({scores})"
    edge = "; the edge of the grid, a wider one may hold a better rate" if chosen.at_edge else ""
    return f"{label}: learning rate {chosen.lr:g} ({scores}{edge})"


def rates_table(suite: "Suite", chosen: Mapping[str, "Chosen"]) -> Table | None:
    """Return validation PSNR by method and learning rate, with the choice; None without trials."""
    tried = [(variant, variant.trials) for variant in suite.variants if variant.trials]
    if not tried:
        return None
    rates = sorted({trial.experiment.training.lr for _, trials in tried for trial in trials})
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("validation PSNR (dB)")
    for rate in rates:
        table.add_column(f"lr {rate:g}", justify="right")
    table.add_column("chosen", justify="right")
    for variant, _ in tried:
        found = chosen.get(variant.name)
        if found is None:
            table.add_row(variant.label, *("" for _ in rates), "not yet")
            continue
        scores = [found.scores.get(rate) for rate in rates]
        cells = ["diverged" if score is None else f"{score:.2f}" for score in scores]
        best = "none" if found.lr is None else f"{found.lr:g}{' (edge)' * found.at_edge}"
        table.add_row(variant.label, *cells, best)
    return table


def print_result(
    suite: "Suite",
    out: str,
    result: "SuiteResult",
    page: Path | None,
    console: Console | None = None,
) -> None:
    """Print the learning rates, what failed and why, and how to compare the runs.

    Args:
        suite: The suite.
        out: Its folder.
        result: What became of it.
        page: The page that compares its runs, where it was written.
        console: Where to print.
    """
    console = console or Console()
    if (rates := rates_table(suite, result.chosen)) is not None:
        console.print(rates, highlight=False)
    for name, why in result.failed.items():
        console.print(Text(f"failed: {name}: {why}"), soft_wrap=True)
    if result.failed:
        logs = f"; what they printed: {result.logs}" if result.logs else ""
        line = f"{len(result.failed)} failed{logs}; the same command goes on with what is missing"
    elif page is None:
        line = f"runs: {out.rstrip('/')}/runs; copied to a disk, `physfed compare` compares them"
    else:
        line = f"page: {page}"
    console.print(Text(line), soft_wrap=True)


def print_suite(suite: "Suite", now: "Standing", out: str, console: Console | None = None) -> None:
    """Print every run of a suite with what is missing, without running it.

    Args:
        suite: The suite.
        now: Where it stands.
        out: Its folder.
        console: Where to print.
    """
    console = console or Console()
    first = suite.runs[0].experiment
    console.print(f"[bold]{suite.name}[/bold] in {out}", highlight=False)
    console.print(
        f"{len(suite.variants)} methods, seeds "
        f"{', '.join(str(run.experiment.seed) for run in suite.variants[0].runs)}; "
        f"{len(first.clients)} clients, {len(first.unseen)} unseen protocols, "
        f"{first.data.image_size} x {first.data.image_size} pixels, "
        f"{first.training.rounds} rounds",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True)
    table.add_column("lr", justify="right")
    table.add_column("rounds", justify="right")
    table.add_column("state")
    for variant in suite.variants:
        rate = now.chosen.get(variant.name)
        for run in (*variant.trials, *variant.runs):
            training, state = run.experiment.training, now.states[run.path]
            lr = f"{training.lr:g}"
            if variant.trials and run in variant.runs:
                lr = f"{rate.lr:g}" if rate and rate.lr is not None else "?"
            table.add_row(run.name, lr, str(training.rounds), state.words)
    console.print(table, highlight=False)
    if (rates := rates_table(suite, now.chosen)) is not None:
        console.print(rates, highlight=False)
    settled = sum(state.settled for state in now.states.values())
    console.print(f"{settled} of {len(now.states)} done", highlight=False)

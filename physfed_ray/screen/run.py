"""Live progress of a run: a display in a terminal, one line a round in a log file."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from physfed_ray.events import PREPARING, Event
from physfed_ray.words import byte_size, duration

if TYPE_CHECKING:
    from physfed_ray.results.runs import ClientEntry
    from physfed_ray.results.tables import ScoreTable

CLIENT_ROWS = 24
MISSING_SHOWN = 3


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values) if values else float("nan")


def _missing(event: Event) -> str:
    gone = list((event.get("missing") or {}).items())
    shown = [f"{client} missing: {reason}" for client, reason in gone[:MISSING_SHOWN]]
    more = [f"and {len(gone) - len(shown)} more"] if len(gone) > len(shown) else []
    return "; ".join(shown + more)


def round_line(event: Event) -> str:
    """Return a ``round`` event as one line."""
    parts = [
        f"round {event['round']}/{event['rounds']}",
        duration(event["seconds"]),
        f"loss {_mean(event['loss']):.3e}",
        f"{event['participants']} clients",
        f"{event['slices_per_s']:.1f} slices/s",
        f"{byte_size(event['bytes_up'])} up, {byte_size(event['bytes_down'])} down",
        f"{duration(event['eta_s'])} left",
    ]
    return ", ".join(part for part in (*parts, _missing(event)) if part)


def evaluation_line(event: Event) -> str:
    """Return an ``evaluation`` event as one line: the mean, and the worst client by PSNR."""
    psnr = {client: scores["psnr"] for client, scores in event["scores"].items()}
    ssim = {client: scores["ssim"] for client, scores in event["scores"].items()}
    line = f"evaluation after round {event['round']}, {event['split']}: PSNR {_mean(psnr):.2f} dB"
    worst = min(psnr, key=psnr.__getitem__, default=None)
    lowest = f", lowest {worst} {psnr[worst]:.2f} dB" if worst and len(psnr) > 1 else ""
    return f"{line}, SSIM {_mean(ssim):.4f}{lowest}"


def start_line(event: Event) -> str:
    """Return a ``start`` event as one line."""
    line = (
        f"{event['method']}: {len(event['clients'])} clients on {event['hosts']} host(s), "
        f"{event['rounds']} rounds, {event['runtime']}, {event['device']}, {event['precision']}"
    )
    return f"{line}, going on after round {event['from_round']}" if event["from_round"] else line


def _origin(event: Event) -> str:
    """Say of scans or reports where they come from."""
    return ", ".join(filter(None, (f"{event['cached']} from the cache", event.get("health"))))


def _losses(event: Event) -> str:
    """Return the losses of a step of pretraining."""
    return ", ".join(f"{name} {value:.4g}" for name, value in event["losses"].items())


def print_results(run_dir: str, console: Console) -> None:
    """Print PSNR and SSIM of seen and unseen protocols, and where the page lies.

    Args:
        run_dir: A finished run, local path or fsspec URL.
        console: Where to print.
    """
    from physfed_ray.results.run_tables import seen_table, unseen_table
    from physfed_ray.results.runs import read_results  # torch and pyarrow: only when there is a run
    from physfed_ray.results.tables import CLIENTS_SHOWN

    run = read_results(run_dir)
    tables = [("seen protocols", seen_table(run), run.clients)]
    if (unseen := unseen_table(run)) is not None:
        tables.append(("unseen protocols", unseen, run.unseen))
    for title, scores, entries in tables:
        if len(entries) > CLIENTS_SHOWN:
            _print_summary(console, f"{run.title}, {title}", scores, entries)
            continue
        console.print(Text(f"{run.title}, {title}: PSNR (dB), SSIM (%)", style="italic"))
        table = Table(box=None, padding=(0, 1, 0, 0))
        _fill(table, scores, [*(entry.label for entry in entries), "average"], f"{run.title}, ")
        console.print(table)
    console.print(Text(f"report: {run_dir.rstrip('/')}/report.html"), soft_wrap=True)


def _fill(table: Table, scores: "ScoreTable", names: Sequence[str], prefix: str) -> None:
    """Put clients in rows and methods in columns, so that eight clients fit 80 characters."""
    table.add_column("")
    for row in scores.rows:
        table.add_column(row.label.removeprefix(prefix), justify="right")
    for position, name in enumerate(names):
        psnr_ssim = [[cell.mean for cell in row[position]] for row in scores.cells]
        cells = [f"{psnr:.2f} {ssim:.1f}" for psnr, ssim in psnr_ssim]
        table.add_row(name, *cells, style="bold" if position == len(names) - 1 else "")


def _print_summary(
    console: Console, title: str, scores: "ScoreTable", entries: Sequence["ClientEntry"]
) -> None:
    """Print statistics over many clients, then the clients that gain most and least."""
    from physfed_ray.results.summaries import extremes, leader, summary

    found = summary(scores)
    method = title.split(", ")[0]
    for k, (metric, unit) in enumerate(zip(found.clients, ("dB", "%"), strict=True)):
        head = ["", *(column.heading for column in found.columns)]
        rows = [
            [row.label.removeprefix(f"{method}, "), *(cell.text for cell in cells[k])]
            for row, cells in zip(found.rows, found.cells, strict=True)
        ]
        _print_rows(console, f"{title}: {metric} ({unit}) of {len(entries)}", head, rows)
    if (grid := extremes(scores, entries)) is not None:
        label = leader(scores).label
        _print_rows(console, f"{label}: largest and smallest gain", grid.head, grid.rows)


def _print_rows(
    console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for k, name in enumerate(head):
        table.add_column(name, justify="right" if k else "left")
    for row in rows:
        table.add_row(*row)
    console.print(Text(title, style="italic"))
    console.print(table)


def progress(console: Console | None = None) -> "LogLines | LiveDisplay":
    """Return what shows events: a live display where the console is a terminal, else lines."""
    console = console or Console(stderr=False, highlight=False)
    return LiveDisplay(console) if console.is_terminal else LogLines(console)


class LogLines(AbstractContextManager["LogLines"]):
    """One plain line for each thing that happens; preparation every tenth and every 30 s."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, tuple[int, float]] = {}

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event["event"]:
            case "done":
                print_results(event["run_dir"], self._console)
            case kind if kind in PREPARING:
                self._prepare(event)
            case "start":
                self._print(start_line(event))
            case "round":
                self._print(round_line(event))
            case "evaluation":
                self._print(evaluation_line(event))
            case "step":
                self._step(event)
            case "message":
                self._print(event["text"])

    def _prepare(self, event: Event) -> None:
        kind, now = event["event"], time.monotonic()
        tenth = 10 * event["done"] // max(1, event["total"])
        shown, last = self._shown.get(kind, (-1, 0.0))
        if tenth == shown and now - last < 30:
            return
        self._shown[kind] = tenth, now
        what = f"{event['done']}/{event['total']} {PREPARING[kind]}"
        self._print(f"prepare: {what} ({_origin(event)})")

    def _step(self, event: Event) -> None:
        tenth, now = 10 * event["step"] // event["steps"], time.monotonic()
        shown, last = self._shown.get("step", (-1, 0.0))
        if tenth != shown or now - last >= 30:
            self._shown["step"] = tenth, now
            self._print(f"step {event['step']}/{event['steps']}: {_losses(event)}")

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close: every line is already out."""


class LiveDisplay(AbstractContextManager["LiveDisplay"]):
    """Bars and a table of clients that are redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, Any] = {}
        self._loss: dict[str, float] = {}
        self._first_loss: dict[str, float] = {}
        self._psnr: dict[str, float] = {}
        self._missing: dict[str, str] = {}
        self._run_dir: str | None = None
        self._console = console
        self._live = Live(self._render(), console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen, and the results below it."""
        self._live.stop()
        if self._run_dir is not None:
            print_results(self._run_dir, self._console)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        show: dict[str, Callable[[Event], None]] = {
            **dict.fromkeys(PREPARING, self._on_prepare),
            "start": lambda event: self._live.console.print(Text(start_line(event))),
            "round": self._on_round,
            "evaluation": self._on_evaluation,
            "step": lambda event: self._bar("steps", event["step"], event["steps"], _losses(event)),
            "message": lambda event: self._live.console.print(Text(event["text"])),
            "done": self._on_done,
        }
        if event["event"] in show:
            show[event["event"]](event)
            self._live.update(self._render())

    def _bar(self, name: str, done: int, total: int, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, note=note)
        self._bars.update(self._tasks[name], completed=done, total=total, note=note)

    def _on_prepare(self, event: Event) -> None:
        self._bar(PREPARING[event["event"]], event["done"], event["total"], _origin(event))

    def _on_round(self, event: Event) -> None:
        self._loss.update(event["loss"])
        self._first_loss = {**event["loss"], **self._first_loss}
        self._missing = dict(event.get("missing") or {})
        note = f"{event['slices_per_s']:.1f} slices/s, {duration(event['eta_s'])} left"
        self._bar("rounds", event["round"], event["rounds"], note)

    def _on_evaluation(self, event: Event) -> None:
        self._live.console.print(Text(evaluation_line(event)))
        self._psnr.update({client: s["psnr"] for client, s in event["scores"].items()})

    def _on_done(self, event: Event) -> None:
        self._run_dir = str(event["run_dir"])

    def _render(self) -> RenderableType:
        return Group(self._bars, self._clients()) if self._loss else Group(self._bars)

    def _clients(self) -> Table:
        """Return the table of clients, those with the highest loss first when there are many."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("client")
        for title in ("loss", "since round 1", "PSNR (dB)"):
            table.add_column(title, justify="right")
        table.add_column("")
        names = list(self._loss)
        if len(names) > CLIENT_ROWS:
            names = sorted(names, key=self._loss.__getitem__, reverse=True)[:CLIENT_ROWS]
        for name in names:
            loss, first = self._loss[name], self._first_loss[name]
            change = f"{100 * (loss / first - 1):+.0f}%" if first else ""
            psnr = f"{self._psnr[name]:.2f}" if name in self._psnr else ""
            gone = self._missing.get(name, "")
            table.add_row(name, f"{loss:.3e}", change, psnr, f"missing: {gone}" if gone else "")
        if len(names) < len(self._loss):
            table.add_row(f"and {len(self._loss) - len(names)} more", "", "", "", "")
        return table

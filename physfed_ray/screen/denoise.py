"""Progress and result of ``physfed denoise``: a bar in a terminal, lines in a log."""

import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from physfed_ray.data.left_out import counted
from physfed_ray.events import Event
from physfed_ray.words import duration

if TYPE_CHECKING:
    from physfed_ray.serving.denoise import Denoised

LINE_EVERY_S = 30.0


def progress_line(event: Event) -> str:
    """Return a ``denoise`` event as one line."""
    there = f", {event['there']} were there" if event["there"] else ""
    rate = f", {event['slices_per_s']:.2f} slices/s" if event["slices_per_s"] else ""
    left = f", {duration(event['eta_s'])} left" if event["eta_s"] else ""
    return f"denoised {event['done']}/{event['total']} slices{there}{rate}{left}"


class DenoiseProgress(AbstractContextManager["DenoiseProgress"]):
    """Shows events.

    Args:
        console: Where.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("denoise"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None
        self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event["event"] == "message":
            self._console.print(event["text"], soft_wrap=True, markup=False)
        elif event["event"] == "denoise":
            self._count(event)

    def _count(self, event: Event) -> None:
        if self._console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task("", total=event["total"])
            about = f"{event['slices_per_s']:.2f} slices/s, {duration(event['eta_s'])} left"
            self._bar.update(self._task, completed=event["done"], description=about)
            return
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S or event["done"] == event["total"]:
            self._last = now
            self._console.print(progress_line(event), soft_wrap=True)

    def __enter__(self) -> Self:
        """Start the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the bar."""
        self._bar.stop()


def progress(console: Console | None = None) -> DenoiseProgress:
    """Return what shows events."""
    return DenoiseProgress(console or Console(highlight=False))


def print_result(result: "Denoised") -> None:
    """Print what a call has done."""
    rate = f", {result.made / result.seconds:.2f} slices/s" if result.made else ""
    there = f", {result.there} were there already" if result.there else ""
    print(f"denoised {result.made} slices in {duration(result.seconds)}{rate}{there}")
    for what, counts in (("left out", result.left_out), ("noted", result.notes)):
        if counts:
            print(f"{what}: {counted(counts)}")
    print(result.out)

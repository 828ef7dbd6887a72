"""What the command line prints about the named protocols, methods and metrics."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from physfed_ray.ct.protocol import SEVEN, Protocol, select_presets

PROTOCOL_HEADINGS = ("views", "bins", "pixel", "bin", "source", "detector", "photons")
FURTHER_HEADINGS = {"detector": "kind", "arc_deg": "arc"}


def print_protocols(pattern: str, console: Console | None = None) -> None:
    """Print the presets that match a shell pattern.

    Raises:
        PhysFedError: None matches.
    """
    table = number_table("protocol", *PROTOCOL_HEADINGS)
    for name, protocol in select_presets(pattern).items():
        table.add_row(name, *numbers(protocol))
    console = console or Console()
    console.print(table)
    console.print(
        "paper-*: the training clients of Yang et al. 2025. unseen-*: this project's own,"
    )
    console.print("because the paper's unseen protocols are not public.")


def print_methods(console: Console | None = None) -> None:
    """Print every method with its paper, its settings and their defaults."""
    from physfed_ray.methods.registry import METHODS  # torch: too slow for `physfed protocols`

    console = console or Console()
    for name, method in METHODS.items():
        title = Text(f"{method.title}, {method.group}; {method.paper}")
        console.print(Text(name, style="bold"), title)
        settings = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
        for key, field in method.Settings.model_fields.items():
            settings.add_row(key, json.dumps(field.default), field.description or "")
        if settings.row_count:
            console.print(settings, highlight=False)


def print_metrics(console: Console | None = None) -> None:
    """Print every metric: what it is, and the unit, better direction and windows of its numbers."""
    from physfed_ray.metrics.base import SetMetric  # torch, as above
    from physfed_ray.metrics.registry import METRICS, STANDARD, metrics_of

    console = console or Console()
    for name in METRICS:
        metrics = metrics_of(name)
        asked = "" if name in STANDARD else ", where evaluation.metrics names it"
        titles = dict.fromkeys(metric.title for metric in metrics)
        sources = ", ".join(dict.fromkeys(m.source for m in metrics if m.source))
        title = Text(f"{sources}{asked}".removeprefix(", "))
        console.print(Text(name, style="bold"), title)
        numbers = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
        for metric in metrics:
            windows = "every window" if metric.clinical else "experiment's window"
            where = windows if metric.phantom is None else f"{metric.phantom.kind} of a phantom"
            where += ", one number for all slices" if isinstance(metric, SetMetric) else ""
            numbers.add_row(metric.name, metric.unit, f"better: {metric.better}", where)
        console.print(numbers, highlight=False)
        for words in titles:
            console.print(Padding(words, (0, 0, 0, 2)), highlight=False)


def number_table(first: str, *headings: str) -> Table:
    """Return an empty table with one left column and right-aligned others."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for title in headings:
        table.add_column(title, justify="right")
    return table


def numbers(protocol: Protocol, further: Sequence[str] = ()) -> list[str]:
    """Return the seven numbers as text, in the order of ``PROTOCOL_HEADINGS``, and further ones."""
    values = (getattr(protocol, name) for name in (*SEVEN, *further))
    return [v if isinstance(v, str) else f"{v:g}".replace("e+0", "e") for v in values]

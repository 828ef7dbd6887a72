"""Plain tables of a run: protocols, patients, routes, and who was missing."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from physfed_ray.ct.protocol import FURTHER, SEVEN
from physfed_ray.results.runs import ClientEntry, RunResults
from physfed_ray.results.tables import CLIENTS_SHOWN

FIRST_ROWS = 8
PROTOCOL_HEAD = (
    "",
    "views",
    "bins",
    "pixel",
    "bin",
    "source to centre",
    "centre to detector",
    "photons per ray",
)
_FURTHER_HEAD = {"detector": "detector", "arc_deg": "arc (degrees)"}
Cells = tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A plain table of words and numbers.

    Attributes:
        head: Headings.
        rows: What a page shows.
        complete: Every row, where a page shows a few of them or their ranges; else empty.
    """

    head: Cells
    rows: Sequence[Cells]
    complete: Sequence[Cells] = ()

    def to_csv(self) -> str:
        """Return every row, also those that a page does not show."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.head, *(self.complete or self.rows)])
        return out.getvalue()


def first_rows(head: Cells, rows: Sequence[Cells]) -> Grid:
    """Return a grid that shows its first rows alone when it has too many for a page."""
    return Grid(head, rows) if len(rows) <= CLIENTS_SHOWN else Grid(head, rows[:FIRST_ROWS], rows)


def grids(run: RunResults) -> dict[str, Grid]:
    """Return the plain tables that the run has data for, by name."""
    found = {
        "routes": _routes(run),
        "missing": _missing(run),
        "splits": splits(run),
        "protocols": _protocols(run),
    }
    return {name: grid for name, grid in found.items() if grid is not None}


def _routes(run: RunResults) -> Grid | None:
    rows = [
        (u.label, u.route[0], f"{u.route[1]:.3f}", u.nearest or "–") for u in run.unseen if u.route
    ]
    if not rows:
        return None
    return first_rows(("Unseen protocol", "sent to", "cosine of codes", "nearest by g"), rows)


def _missing(run: RunResults) -> Grid | None:
    if not run.missing:
        return None
    grouped: dict[tuple[str, str], list[int]] = {}
    for number, client, reason in run.missing:
        grouped.setdefault((client, reason), []).append(number)
    entries = sorted(grouped.items())
    if len(entries) > CLIENTS_SHOWN:
        entries.sort(key=lambda entry: -len(entry[1]))
    rows = [
        (client, str(len(rounds)), ", ".join(map(str, rounds[:12])), reason)
        for (client, reason), rounds in entries
    ]
    return first_rows(("Client", "times", "rounds (first 12)", "reason"), rows)


def splits(run: RunResults) -> Grid | None:
    """Return how many patients and slices each client has for each purpose, None where unknown."""
    found = run.summary.get("data", {}).get("splits", {})
    names = [name for name, counts in found.items() if counts]
    if not names:
        return None
    clients = dict.fromkeys(client for name in names for client in found[name])
    rows = [(client, *(_counts(found[name].get(client)) for name in names)) for client in clients]
    return first_rows(("patients / slices", *names), rows)


def _counts(counts: Mapping[str, int] | None) -> str:
    return f"{counts['patients']} / {counts['slices']}" if counts else "–"


def _protocols(run: RunResults) -> Grid:
    """Return a row for each client and unseen protocol; the range of each number for many."""
    show_data = any(entry.slices is not None for entry in run.clients)
    entries = (*run.clients, *run.unseen)
    further = [
        name
        for name, usual in FURTHER.items()
        if any(entry.protocol.get(name, usual) != usual for entry in entries)
    ]
    head = (*PROTOCOL_HEAD, *(_FURTHER_HEAD[name] for name in further))
    head += ("patients", "training slices", "host") if show_data else ()
    clients, unseen = (
        [_protocol_row(entry, further, show_data) for entry in entries]
        for entries in (run.clients, run.unseen)
    )
    if len(clients) <= CLIENTS_SHOWN:
        return first_rows(head, [*clients, *unseen])
    ranges = _ranges(run.clients, len(head))
    return Grid(head, [*ranges, *unseen[:FIRST_ROWS]], [*clients, *unseen])


def _protocol_row(entry: ClientEntry, further: Sequence[str], show_data: bool) -> Cells:
    data = [entry.patients, entry.slices, entry.host] if show_data else []
    words = ["–" if value is None else str(value) for value in data]
    others = (entry.protocol.get(name, FURTHER[name]) for name in further)
    shown = [value if isinstance(value, str) else f"{value:g}" for value in others]
    return (entry.label, *_seven([entry.protocol[name] for name in SEVEN]), *shown, *words)


def _ranges(entries: Sequence[ClientEntry], width: int) -> list[Cells]:
    """Return the lowest, middle and highest of each of the seven numbers, taken one by one."""
    numbers = np.array([[entry.protocol[name] for name in SEVEN] for entry in entries])
    found = np.quantile(numbers, (0, 0.5, 1), axis=0)
    names = (f"lowest of {len(entries)} clients", "median", "highest")
    blank = ("",) * (width - len(PROTOCOL_HEAD))
    return [(name, *_seven(row), *blank) for name, row in zip(names, found, strict=True)]


def _seven(numbers: Sequence[float]) -> Cells:
    return (*(f"{value:g}" for value in numbers[:6]), f"{numbers[6]:,.0f}")

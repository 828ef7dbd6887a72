"""The score tables of one run: its own clients, and the unseen protocols under every policy."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from physfed_ray.metrics.base import Metric
from physfed_ray.metrics.discs import DiscPhantom
from physfed_ray.metrics.registry import (
    HEADLINE,
    METRICS,
    STANDARD,
    phantom_metrics,
    slice_metrics,
)
from physfed_ray.results.runs import POLICIES, ClientEntry, RunResults
from physfed_ray.results.summaries import shown
from physfed_ray.results.tables import CLIENTS_SHOWN, Column, ScoreTable, TableRow


def column_of(metric: Metric, name: str | None = None) -> Column:
    """Return how tables print a metric.

    Args:
        metric: The metric.
        name: Its name in a clinical window, None for that in the experiment's.
    """
    name = metric.name if name is None else name
    return Column(
        name,
        metric.heading + name.removeprefix(metric.name).replace("[", " ["),
        metric.scale,
        metric.decimals,
        higher_is_better=metric.better != "lower",
        compared=metric.better != "neither",
        unit=metric.unit,
    )


def with_units(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Put the unit into each heading, for tables whose caption gives none."""
    return tuple(replace(column, heading=column.labelled) for column in columns)


def units_of(columns: Iterable[Column]) -> str:
    """Return the units of columns for a caption: "PSNR in dB, SSIM in %"."""
    return ", ".join(f"{column.heading} in {column.unit}" for column in columns)


FULL_DOSE = f"Input, {DiscPhantom.full_dose:g} times the photons"
WHOLE = tuple(column_of(metric) for metric in slice_metrics(HEADLINE))
UNITS = units_of(WHOLE)
BODY = tuple(column_of(m) for m in slice_metrics(STANDARD) if "body" in m.needs)


def row_of(
    label: str,
    runs: Sequence[RunResults],
    split: str,
    clients: Sequence[str],
    columns: Sequence[Column],
    *,
    ranked: bool = True,
) -> TableRow:
    """Collect a row from runs that differ in their seed alone.

    Args:
        label: The row's name.
        runs: One run a seed.
        split: Such as "test" or "unseen/pvqs".
        clients: Client ids in the table's order.
        columns: The metrics.
        ranked: Whether it competes.
    """
    values = np.full((len(runs), len(clients), len(columns)), np.nan)
    for s, run in enumerate(runs):
        for m, column in enumerate(columns):
            means = run.client_means(split, column.metric)
            values[s, :, m] = [means.get(client, np.nan) for client in clients]
    return TableRow(label, values, ranked, tuple(run.seed for run in runs))


def policy_label(title: str, policy: str) -> str:
    """Name a method served by a policy."""
    suffix = POLICIES[policy][0]
    return f"{title}, {suffix}" if suffix else title


def standard_columns(run: RunResults) -> list[Column]:
    """Return the columns of what is always measured beside the headline and the body.

    What is not in the headline says its unit in its heading.
    """
    shown = {column.metric for column in (*WHOLE, *BODY)}
    found = [
        (metric, column_of(metric, name))
        for metric, name in _found(run, slice_metrics(STANDARD))
        if name not in shown
    ]
    return [
        column if metric.name in HEADLINE else with_units([column])[0] for metric, column in found
    ]


def every_column(run: RunResults) -> list[Column]:
    """Return the columns of all that a run has measured on slices, in one table."""
    body = [replace(column, heading=f"{column.heading} of the body") for column in BODY]
    return [*WHOLE, *body, *standard_columns(run), *optional_columns(run)]


def optional_columns(run: RunResults) -> tuple[Column, ...]:
    """Return the columns of the optional metrics that a run was asked for.

    A metric of a package that is not installed here is printed as it was stored, without a best.
    """
    asked = slice_metrics(name for name in run.optional_metrics if name in METRICS)
    known = {name for _, name in _found(run, [*slice_metrics(STANDARD), *asked])}
    return (
        *with_units(column_of(metric, name) for metric, name in _found(run, asked)),
        *(
            Column(name, name, decimals=4, compared=False)
            for name in run.scored
            if name not in known
        ),
    )


def _found(run: RunResults, metrics: Sequence[Metric]) -> list[tuple[Metric, str]]:
    """Return what a run has of metrics: first in its own window, then in clinical ones."""
    whole = [(metric, metric.name) for metric in metrics if metric.name in run.scored]
    own = {metric.name: metric for metric in metrics if metric.clinical}
    bases = ((name, name.partition("[")[0]) for name in run.scored if "[" in name)
    return whole + [(own[base], name) for name, base in bases if base in own]


def optional_notes(run: RunResults) -> str:
    """Return what a caption says of the optional metrics of a run."""
    metrics = slice_metrics(name for name in run.optional_metrics if name in METRICS)
    return "; ".join(dict.fromkeys(metric.note or metric.title for metric in metrics))


def phantom_columns(run: RunResults, kind: str) -> tuple[Column, ...]:
    """Return the columns of what a run has measured on a kind of phantom; the note has the unit."""
    metrics = phantom_metrics((name for name in run.optional_metrics if name in METRICS), kind)
    return tuple(
        column_of(m) for m in metrics if m.better != "neither" and run.client_means(kind, m.name)
    )


def phantom_notes(run: RunResults, kind: str) -> str:
    """Return what a caption says of the metrics on a kind of phantom."""
    metrics = phantom_metrics((name for name in run.optional_metrics if name in METRICS), kind)
    return "; ".join(dict.fromkeys(metric.note or metric.title for metric in metrics))


def undenoised_rows(
    runs: Sequence[RunResults],
    kind: str,
    ids: Sequence[str],
    columns: Sequence[Column],
    *,
    unseen: bool,
) -> list[TableRow]:
    """Return the rows of undenoised scans of a phantom: the input, and more photons if scanned."""
    low, full = (
        f"unseen/{which}/{kind}" if unseen else f"{kind}/{which}" for which in ("input", "full")
    )
    rows = [row_of("Input", runs, low, ids, columns)]
    more = row_of(FULL_DOSE, runs, full, ids, columns, ranked=False)
    return [*rows, more] if np.isfinite(more.values).any() else rows


def phantom_table(run: RunResults, kind: str, *, unseen: bool = False) -> ScoreTable | None:
    """Return what was measured on a kind of phantom, None where nothing was.

    Args:
        run: The run.
        kind: Such as "edge" or "discs".
        unseen: Under unseen protocols by every policy that was measured, not under the clients'.
    """
    entries, columns = run.unseen if unseen else run.clients, phantom_columns(run, kind)
    ids = [entry.id for entry in entries]
    split = {policy: f"unseen/{policy}/{kind}" for policy in POLICIES} if unseen else {"": kind}
    served = {
        policy: where
        for policy, where in split.items()
        if any(run.client_means(where, column.metric) for column in columns)
    }
    if not served:
        return None
    rows = undenoised_rows([run], kind, ids, columns, unseen=unseen)
    for policy, where in served.items():
        label = policy_label(run.title, policy) if policy else run.title
        rows.append(row_of(label, [run], where, ids, columns))
    what = "Unseen protocols" if unseen else "Clients seen in training"
    caption = f"{what} ({phantom_notes(run, kind)}){client_key(entries, ': ')}."
    word = "Unseen" if unseen else "Client"
    return ScoreTable(caption, headings(entries, word), columns, tuple(rows))


def seen_table(
    run: RunResults, columns: Sequence[Column] = WHOLE, units: str = UNITS
) -> ScoreTable:
    """Return the table of a run's own clients on the test patients."""
    clients = [c.id for c in run.clients]
    split = "test" if run.client_means("test", columns[0].metric) else "validation"
    rows = [
        row_of("Input", [run], f"{split}/input", clients, columns),
        row_of(run.title, [run], split, clients, columns),
    ]
    caption = (
        f"Clients seen in training, {split} patients ({units}){client_key(run.clients, ': ')}."
    )
    return ScoreTable(caption, headings(run.clients, "Client"), tuple(columns), tuple(rows))


def unseen_table(
    run: RunResults, columns: Sequence[Column] = WHOLE, units: str = UNITS
) -> ScoreTable | None:
    """Return the table of the unseen protocols under every policy, None without any."""
    if not run.policies:
        return None
    clients = [c.id for c in run.unseen]
    rows = [row_of("Input", [run], "unseen/input", clients, columns)]
    for policy in run.policies:
        label = policy_label(run.title, policy)
        ranked = policy != "oracle"
        rows.append(row_of(label, [run], f"unseen/{policy}", clients, columns, ranked=ranked))
    caption = f"Unseen protocols, test patients ({units}){client_key(run.unseen, ': ')}."
    return ScoreTable(caption, headings(run.unseen, "Unseen"), tuple(columns), tuple(rows))


def headings(entries: Sequence[ClientEntry], word: str) -> tuple[str, ...]:
    """Number the clients as the paper's tables do; call them by their names where they are many."""
    if len(entries) > CLIENTS_SHOWN:
        return tuple(entry.label for entry in entries)
    return tuple(f"{word} #{k + 1}" for k in range(len(entries)))


def client_key(entries: Sequence[ClientEntry], joint: str) -> str:
    """Say, after ``joint``, which client each number of ``headings`` stands for."""
    if len(entries) > CLIENTS_SHOWN:
        return ""
    return joint + ", ".join(f"#{k + 1} is {entry.label}" for k, entry in enumerate(entries))


def write_tables(run: RunResults) -> dict[str, ScoreTable]:
    """Write ``tables/seen``, ``tables/unseen`` and so on as .md, .csv and .tex; return them.

    The .csv files hold every client; .md and .tex a summary where there are many.
    """
    found = {
        "seen": seen_table(run),
        "seen_body": seen_table(run, BODY),
        "unseen": unseen_table(run),
        "unseen_body": unseen_table(run, BODY),
        "seen_edges": phantom_table(run, "edge"),
        "seen_discs": phantom_table(run, "discs"),
        "unseen_discs": phantom_table(run, "discs", unseen=True),
    }
    if columns := optional_columns(run):
        found["seen_optional"] = seen_table(run, columns, optional_notes(run))
        found["unseen_optional"] = unseen_table(run, columns, optional_notes(run))
    tables = {name: table for name, table in found.items() if table is not None}
    for name, table in tables.items():
        page = shown(table)
        markdown = f"{page.caption}\n\n{page.to_markdown()}"
        run.directory.write(f"tables/{name}.md", markdown.encode())
        run.directory.write(f"tables/{name}.csv", table.to_csv().encode())
        run.directory.write(f"tables/{name}.tex", page.to_latex().encode())
    return tables

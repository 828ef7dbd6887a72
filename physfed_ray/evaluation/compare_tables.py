"""The tables of a comparison: scores with seeds, pairings, costs, modulation, settings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from physfed_ray.evaluation.groups import Group
from physfed_ray.evaluation.long_table import LongTable
from physfed_ray.evaluation.pairing import pair
from physfed_ray.evaluation.report_page import duration
from physfed_ray.evaluation.run_tables import UNITS, client_key, headings, policy_label, row_of
from physfed_ray.evaluation.runs import Run, finite_mean
from physfed_ray.evaluation.tables import (
    CLIENTS_SHOWN,
    Column,
    Row,
    ScoreTable,
    nan_mean,
    table_line,
)

Classical = Mapping[str, Mapping[int, LongTable]]


@dataclass(frozen=True)
class Comparison:
    """What a page compares.

    Attributes:
        groups: The methods.
        classical: Rows of ``classical.parquet`` by title and seed.
    """

    groups: Sequence[Group]
    classical: Classical

    @property
    def first(self) -> Run:
        """A run to read from what all runs share."""
        return self.groups[0].runs[0]

    @property
    def inputs(self) -> list[Run]:
        """One run a seed: the input is the same for all methods."""
        by_seed = {run.seed: run for group in reversed(self.groups) for run in group.runs}
        return [by_seed[seed] for seed in sorted(by_seed)]

    def served(self) -> list[tuple[str, str, Group]]:
        """Return label, policy and group of every way of serving an unseen protocol."""
        return [
            (policy_label(group.label, policy), policy, group)
            for group in self.groups
            for policy in group.runs[0].policies
        ]


def seen(comparison: Comparison, columns: Sequence[Column]) -> ScoreTable:
    """Return the table of the clients seen in training."""
    run = comparison.first
    clients = [c.id for c in run.clients]
    rows = [row_of("Input", comparison.inputs, "test/input", clients, columns)]
    rows += _classical_rows(comparison, "test", clients, columns)
    rows += [row_of(g.label, g.runs, "test", clients, columns) for g in comparison.groups]
    caption = f"{UNITS}{client_key(run.clients, '; ')}."
    return ScoreTable(caption, headings(run.clients, "Client"), tuple(columns), tuple(rows))


def unseen(comparison: Comparison, columns: Sequence[Column]) -> ScoreTable:
    """Return the table of the unseen protocols under every policy."""
    run = comparison.first
    clients = [c.id for c in run.unseen]
    rows = [row_of("Input", comparison.inputs, "unseen/input", clients, columns)]
    rows += _classical_rows(comparison, "unseen/classical", clients, columns)
    for label, policy, group in comparison.served():
        ranked = policy != "oracle"
        rows.append(row_of(label, group.runs, f"unseen/{policy}", clients, columns, ranked=ranked))
    caption = f"{UNITS}{client_key(run.unseen, '; ')}."
    return ScoreTable(caption, headings(run.unseen, "Unseen"), tuple(columns), tuple(rows))


def averages(table: ScoreTable) -> ScoreTable:
    """Return a table's averages over clients alone, every column with its spread over seeds."""
    rows = tuple(Row(r.label, nan_mean(r.values, 1)[:, None], r.ranked) for r in table.rows)
    return ScoreTable(table.caption, ("",), table.columns, rows, average=False)


def window_columns(run: Run) -> list[Column]:
    """Return the columns of the clinical windows, and the RMSE."""
    columns = [Column("rmse_hu", "RMSE (HU)", 1.0, 1, higher_is_better=False)]
    for metric in run.slices.distinct("metric"):
        if "[" in str(metric):
            base = str(metric).split("[")[0]
            scale = 100.0 if base == "ssim" else 1.0
            columns.append(Column(str(metric), f"{base.upper()} {str(metric)[len(base) :]}", scale))
    return columns


def pairings(comparison: Comparison, *, of_unseen: bool) -> tuple[str, list[list[str]]] | None:
    """Compare the best method by mean PSNR with every other, seed by seed and client by client.

    Returns:
        The best method and a row of cells for every other; None with fewer than two.
    """
    scores: dict[str, dict[tuple[int, str], float]] = {}
    if of_unseen:
        entries = [
            (label, f"unseen/{p}", g) for label, p, g in comparison.served() if p != "oracle"
        ]
    else:
        entries = [(group.label, "test", group) for group in comparison.groups]
    for label, split, group in entries:
        scores[label] = {
            (run.seed, client): value
            for run in group.runs
            for client, value in run.client_means(split, "psnr").items()
        }
    order = sorted(scores, key=lambda label: -finite_mean(scores[label].values()))
    if len(order) < 2:
        return None
    rows = []
    for label in order[1:]:
        found = pair(scores[order[0]], scores[label])
        if found is not None:
            p = "–" if math.isnan(found.p) else f"{found.p:.2g}"
            rows.append([label, f"{found.difference:+.2f}", f"{found.wins} of {found.pairs}", p])
    return order[0], rows


def costs(comparison: Comparison) -> str:
    """Return time, bytes and parameters of every method as a Markdown table."""
    head = [
        "Method",
        "seeds",
        "training time",
        "s a round",
        "MB down a round",
        "MB up a round",
        "parameters shared",
        "private, each client",
    ]
    rows = []
    for group in comparison.groups:
        summaries = [run.summary for run in group.runs]
        seconds = [v for run in group.runs for v in run.curve("system", "seconds")["server"][1]]
        down, up = (
            finite_mean(s["bytes_per_round"][way] for s in summaries) / 1e6
            for way in ("down", "up")
        )
        counts = summaries[0]["parameters"]
        rows.append(
            [
                group.label,
                ", ".join(map(str, group.seeds)),
                duration(finite_mean(s["wall_s"] for s in summaries)),
                f"{finite_mean(seconds):.2f}",
                f"{down:.2f}",
                f"{up:.2f}",
                f"{counts['shared']:,}",
                f"{counts['private']:,}",
            ]
        )
    return markdown(head, rows)


def modulation(comparison: Comparison) -> str | None:
    """Return the last state of every group's modulation as a Markdown table, None without any."""
    state: dict[str, dict[str, list[float]]] = {}
    for group in comparison.groups:
        for run in group.runs:
            names = run.metrics.where(split="modulation").distinct("metric")
            for name in names:
                values = run.client_means("modulation", str(name)).values()
                state.setdefault(group.label, {}).setdefault(str(name), []).extend(values)
    if not state:
        return None
    names = list(dict.fromkeys(name for found in state.values() for name in found))
    rows = []
    for name in names:
        cells = [state[label].get(name, []) for label in state]
        rows.append([f"`{name}`", *(_range(values) for values in cells)])
    return markdown(["Quantity", *state], rows)


def settings(groups: Sequence[Group]) -> tuple[list[tuple[str, str]], str | None]:
    """Return the settings that all methods share, and a Markdown table of those that differ."""
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    shared, rows = [], []
    for key in keys:
        values = [group.settings.get(key, "–") for group in groups]
        if len(set(values)) == 1:
            shared.append((key, values[0]))
        else:
            rows.append([f"`{key}`", *values])
    return shared, markdown(["Setting", *(g.label for g in groups)], rows) if rows else None


def strengths(comparison: Comparison) -> str | None:
    """Return the strengths that the classical denoisers were given, None without any.

    One column a client, or the range over the clients where they are many.
    """
    if not comparison.classical:
        return None
    entries = [*comparison.first.clients, *comparison.first.unseen]
    if len(entries) > CLIENTS_SHOWN:
        ranges = []
        for title, by_seed in comparison.classical.items():
            found = [v for t in by_seed.values() for v in t.where(split="strength").values]
            ranges.append([title, _range(found)])
        return markdown(["Denoiser", "mean strength (range)"], ranges)
    rows = []
    for title, by_seed in comparison.classical.items():
        cells = []
        for entry in entries:
            chosen = [t.where(split="strength", client=entry.id).values for t in by_seed.values()]
            values = sorted({f"{v:.3g}" for found in chosen for v in found}, key=float)
            cells.append(", ".join(values) or "–")
        rows.append([title, *cells])
    return markdown(["Denoiser", *(entry.id for entry in entries)], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column holds words and whose others hold numbers."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(table_line(line) for line in (head, rule, *rows)) + "\n"


def _range(values: Sequence[float]) -> str:
    kept = [v for v in values if math.isfinite(v)]
    if not kept:
        return "–"
    return f"{finite_mean(kept):.4g} ({min(kept):.4g} to {max(kept):.4g})"


def _classical_rows(
    comparison: Comparison, split: str, clients: Sequence[str], columns: Sequence[Column]
) -> list[Row]:
    rows = []
    for title, by_seed in comparison.classical.items():
        values = np.full((len(by_seed), len(clients), len(columns)), np.nan)
        for s, seed in enumerate(sorted(by_seed)):
            for m, column in enumerate(columns):
                found = by_seed[seed].where(split=split, metric=column.metric).means("client")
                values[s, :, m] = [found.get(client, np.nan) for client in clients]
        rows.append(Row(title, values, seeds=tuple(sorted(by_seed))))
    return rows

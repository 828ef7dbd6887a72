"""Score tables in the paper's layout: Markdown, CSV and LaTeX from one object.

Rows are methods, columns are clients with one entry a metric, and the last columns average over
the clients (Yang et al. 2025, tables 1 to 3). A row holds one or more seeds.
"""

import csv
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from physfed_ray.evaluation.runs import POLICIES, Run

Mark = Literal["best", "second", ""]


@dataclass(frozen=True)
class Column:
    """How a metric is printed.

    Attributes:
        metric: Its name in the run directory.
        heading: What the table calls it; captions give the unit.
        scale: Factor from stored to printed.
        decimals: Digits after the point.
        higher_is_better: Direction of the ranking.
    """

    metric: str
    heading: str
    scale: float = 1.0
    decimals: int = 2
    higher_is_better: bool = True


WHOLE = (Column("psnr", "PSNR"), Column("ssim", "SSIM", 100.0))
UNITS = "PSNR in dB, SSIM in %"
BODY = (Column("psnr_body", "PSNR"), Column("ssim_body", "SSIM", 100.0))


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        label: What the table calls it.
        values: (seeds, clients, metrics) float64 as stored, NaN where missing.
        ranked: Whether it competes for best and second; a bound does not.
    """

    label: str
    values: NDArray[np.float64]
    ranked: bool = True


@dataclass(frozen=True)
class Cell:
    """One number of the table as it is printed."""

    mean: float
    spread: float | None
    decimals: int
    mark: Mark

    @property
    def text(self) -> str:
        """Mean, and the standard deviation over seeds where it is asked for."""
        if math.isnan(self.mean):
            return "–"
        mean = f"{self.mean:.{self.decimals}f}"
        return mean if self.spread is None else f"{mean} ± {self.spread:.{self.decimals}f}"


@dataclass(frozen=True)
class ScoreTable:
    """Methods by clients.

    Attributes:
        caption: One sentence.
        clients: Column headings, such as "Client #1".
        columns: The metrics of each client.
        rows: The methods, input first.
    """

    caption: str
    clients: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def headings(self) -> tuple[str, ...]:
        """The clients and the average."""
        return (*self.clients, "Average")

    @cached_property
    def cells(self) -> list[list[list[Cell]]]:
        """Printed numbers: rows, clients and the average, metrics."""
        spread = [_spread(row.values) for row in self.rows]
        means = np.stack([_means(row.values) for row in self.rows])
        printed = np.array([c.scale for c in self.columns]) * means
        marks = self._marks(printed)
        last = len(self.clients)
        return [
            [
                [
                    Cell(
                        float(printed[r, k, m]),
                        spread[r][m] * column.scale if k == last and spread[r] else None,
                        column.decimals,
                        marks[r][k][m],
                    )
                    for m, column in enumerate(self.columns)
                ]
                for k in range(last + 1)
            ]
            for r in range(len(self.rows))
        ]

    def _marks(self, printed: NDArray[np.float64]) -> list[list[list[Mark]]]:
        """Mark the best and, among three or more, the second; equal prints share a mark."""
        ranked = [r for r, row in enumerate(self.rows) if row.ranked]
        marks: list[list[list[Mark]]] = [
            [[""] * len(self.columns) for _ in self.headings] for _ in self.rows
        ]
        for k in range(len(self.headings)):
            for m, column in enumerate(self.columns):
                sign = 1 if column.higher_is_better else -1
                value = {r: round(sign * float(printed[r, k, m]), column.decimals) for r in ranked}
                order = sorted({v for v in value.values() if not math.isnan(v)}, reverse=True)
                for r in ranked:
                    if order and value[r] == order[0]:
                        marks[r][k][m] = "best"
                    elif len(ranked) > 2 and len(order) > 1 and value[r] == order[1]:
                        marks[r][k][m] = "second"
        return marks

    def to_markdown(self) -> str:
        """Return a Markdown table, best bold and second underlined."""
        head = ["Method"]
        for client in self.headings:
            head += [f"{client}<br>{column.heading}" for column in self.columns]
        lines = [_line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
        for row, cells in zip(self.rows, self.cells, strict=True):
            flat = [_markdown(cell) for client in cells for cell in client]
            label = row.label if row.ranked else f"*{row.label}*"
            lines.append(_line([label, *flat]))
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """Return one line a method, client and metric: mean and spread over seeds, unrounded."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["method", "client", "metric", "mean", "sd_over_seeds", "seeds"])
        for row in self.rows:
            per_seed = np.concatenate([row.values, _client_average(row.values)[:, None]], axis=1)
            for k, client in enumerate(self.headings):
                for m, column in enumerate(self.columns):
                    values = per_seed[:, k, m][~np.isnan(per_seed[:, k, m])]
                    mean = f"{values.mean():.6g}" if len(values) else ""
                    spread = f"{values.std(ddof=1):.4g}" if len(values) > 1 else ""
                    entry = [row.label, client, column.metric, mean, spread, len(values)]
                    writer.writerow(entry)
        return out.getvalue()

    def to_latex(self) -> str:
        r"""Return a booktabs table with \multicolumn client headings."""
        width = len(self.columns)
        spans = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{_tex(c)}}}" for c in self.headings)
        names = " & ".join(_tex(c.heading) for _ in self.headings for c in self.columns)
        lines = [
            r"\begin{table}",
            rf"\caption{{{_tex(self.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * width * len(self.headings)}}}",
            r"\toprule",
            rf" & {spans} \\",
            rf" & {names} \\",
            r"\midrule",
        ]
        for row, cells in zip(self.rows, self.cells, strict=True):
            flat = " & ".join(_latex(cell) for client in cells for cell in client)
            lines.append(rf"{_tex(row.label)} & {flat} \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def row_of(
    label: str,
    runs: Sequence[Run],
    split: str,
    clients: Sequence[str],
    columns: Sequence[Column],
    *,
    ranked: bool = True,
) -> Row:
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
    return Row(label, values, ranked)


def policy_label(title: str, policy: str) -> str:
    """Name a method served by a policy."""
    suffix = POLICIES[policy][0]
    return f"{title}, {suffix}" if suffix else title


def seen_table(run: Run, columns: Sequence[Column] = WHOLE) -> ScoreTable:
    """Return the table of a run's own clients on the test patients."""
    clients = [c.id for c in run.clients]
    split = "test" if run.client_means("test", columns[0].metric) else "validation"
    rows = [
        row_of("Input", [run], f"{split}/input", clients, columns),
        row_of(run.title, [run], split, clients, columns),
    ]
    caption = f"Clients seen in training, {split} patients ({UNITS}): {client_key(run, seen=True)}."
    headings = tuple(f"Client #{k + 1}" for k in range(len(clients)))
    return ScoreTable(caption, headings, tuple(columns), tuple(rows))


def unseen_table(run: Run, columns: Sequence[Column] = WHOLE) -> ScoreTable | None:
    """Return the table of the unseen protocols under every policy, None without any."""
    if not run.policies:
        return None
    clients = [c.id for c in run.unseen]
    rows = [row_of("Input", [run], "unseen/input", clients, columns)]
    for policy in run.policies:
        label = policy_label(run.title, policy)
        ranked = policy != "oracle"
        rows.append(row_of(label, [run], f"unseen/{policy}", clients, columns, ranked=ranked))
    caption = f"Unseen protocols, test patients ({UNITS}): {client_key(run, seen=False)}."
    headings = tuple(f"Unseen #{k + 1}" for k in range(len(clients)))
    return ScoreTable(caption, headings, tuple(columns), tuple(rows))


def client_key(run: Run, *, seen: bool) -> str:
    """Say which client or unseen protocol each number of the headings stands for."""
    entries = run.clients if seen else run.unseen
    return ", ".join(f"#{k + 1} is {entry.label}" for k, entry in enumerate(entries))


def write_tables(run: Run) -> dict[str, ScoreTable]:
    """Write ``tables/seen`` and ``tables/unseen`` as .md, .csv and .tex; return them by name."""
    tables = {"seen": seen_table(run), "seen_body": seen_table(run, BODY)}
    for name, columns in (("unseen", WHOLE), ("unseen_body", BODY)):
        if (table := unseen_table(run, columns)) is not None:
            tables[name] = table
    for name, table in tables.items():
        markdown = f"{table.caption}\n\n{table.to_markdown()}"
        run.directory.write(f"tables/{name}.md", markdown.encode())
        run.directory.write(f"tables/{name}.csv", table.to_csv().encode())
        run.directory.write(f"tables/{name}.tex", table.to_latex().encode())
    return tables


def _client_average(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average (seeds, clients, metrics) over the clients that have a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a client without any value stays NaN
        return np.asarray(np.nanmean(values, axis=1))


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means over seeds of every client and of the average, (clients + 1, metrics)."""
    joined = np.concatenate([values, _client_average(values)[:, None]], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(joined, axis=0))


def _spread(values: NDArray[np.float64]) -> list[float]:
    """Return the standard deviation of the average over seeds, [] with one seed."""
    if len(values) < 2:
        return []
    return [float(s) for s in _client_average(values).std(axis=0, ddof=1)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(cell: Cell) -> str:
    wrap = {"best": "**{}**", "second": "<ins>{}</ins>", "": "{}"}[cell.mark]
    return wrap.format(cell.text)


def _latex(cell: Cell) -> str:
    text = cell.text.replace("±", r"$\pm$").replace("–", "--")
    wrap = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}[cell.mark]
    return wrap % text


def _tex(text: str) -> str:
    for character in "&%$#_":
        text = text.replace(character, "\\" + character)
    return text

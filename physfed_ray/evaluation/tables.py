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

Mark = Literal["best", "second", ""]
CLIENTS_SHOWN = 16  # tables, figures and pages summarise more clients than this


@dataclass(frozen=True)
class Column:
    """How a metric is printed.

    Attributes:
        metric: Its name in the run directory.
        heading: What the table calls it; captions give the unit.
        scale: Factor from stored to printed.
        decimals: Digits after the point.
        higher_is_better: Direction of the ranking.
        compared: Whether the best is marked, and the spread over seeds printed.
    """

    metric: str
    heading: str
    scale: float = 1.0
    decimals: int = 2
    higher_is_better: bool = True
    compared: bool = True


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        label: What the table calls it.
        values: (seeds, clients, metrics) float64 as stored, NaN where missing.
        ranked: Whether it competes for best and second; a bound does not.
        seeds: Those of ``values``, where rows are paired by seed.
    """

    label: str
    values: NDArray[np.float64]
    ranked: bool = True
    seeds: tuple[int, ...] = ()


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
        average: Whether columns for the average over the clients follow. Spreads over seeds are
            printed in those, and in every column where they do not follow.
    """

    caption: str
    clients: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    average: bool = True

    @property
    def headings(self) -> tuple[str, ...]:
        """The clients, and the average where there is one."""
        return (*self.clients, "Average") if self.average else self.clients

    @cached_property
    def cells(self) -> list[list[list[Cell]]]:
        """Printed numbers: rows, headings, metrics."""
        scale = np.array([column.scale for column in self.columns])
        means = np.stack([nan_mean(self._values(row), 0) for row in self.rows]) * scale
        marks = self._marks(means)
        return [
            [
                [
                    Cell(float(means[r, k, m]), spread[k][m], column.decimals, marks[r][k][m])
                    for m, column in enumerate(self.columns)
                ]
                for k in range(len(self.headings))
            ]
            for r, spread in enumerate(self._spreads(row, scale) for row in self.rows)
        ]

    def _values(self, row: Row) -> NDArray[np.float64]:
        """Return (seeds, headings, metrics): a row's values, and their average if asked for."""
        if not self.average:
            return row.values
        return np.concatenate([row.values, nan_mean(row.values, 1)[:, None]], axis=1)

    def _spreads(self, row: Row, scale: NDArray[np.float64]) -> list[list[float | None]]:
        """Return the standard deviation over seeds where it is printed, None elsewhere."""
        spreads: list[list[float | None]] = [[None] * len(self.columns) for _ in self.headings]
        if len(row.values) > 1:
            found = _deviation(self._values(row)) * scale
            for k in range(len(self.headings) - 1 if self.average else 0, len(self.headings)):
                spreads[k] = [
                    float(s) if column.compared and not math.isnan(s) else None
                    for s, column in zip(found[k], self.columns, strict=True)
                ]
        return spreads

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
                for r in ranked if column.compared else ():
                    if order and value[r] == order[0]:
                        marks[r][k][m] = "best"
                    elif len(ranked) > 2 and len(order) > 1 and value[r] == order[1]:
                        marks[r][k][m] = "second"
        return marks

    def to_markdown(self) -> str:
        """Return a Markdown table, best bold and second underlined."""
        head = ["Method"]
        for client in self.headings:
            head += [f"{client}<br>{c.heading}".removeprefix("<br>") for c in self.columns]
        lines = [table_line(head), table_line(["---"] + ["---:"] * (len(head) - 1))]
        for row, cells in zip(self.rows, self.cells, strict=True):
            flat = [_markdown(cell) for client in cells for cell in client]
            label = row.label if row.ranked else f"*{row.label}*"
            lines.append(table_line([label, *flat]))
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """Return one line a method, client and metric: mean and spread over seeds, unrounded."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["method", "client", "metric", "mean", "sd_over_seeds", "seeds"])
        for row in self.rows:
            per_seed = self._values(row)
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


def nan_mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Average over an axis what is not NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis))


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sample standard deviation over the first axis of what is not NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanstd(values, axis=0, ddof=1))


def table_line(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
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

"""Score tables in the paper's layout: Markdown, CSV and LaTeX from one object.

Rows are methods, columns are clients with one entry a metric, and the last columns average over
the clients (Yang et al. 2025, tables 1 to 3). A row holds one or more seeds.
"""

import csv
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mark = Literal["best", "second", ""]
COLUMNS_A_TEXT_COLUMN = 7  # wider LaTeX tables span the page
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
        unit: Of the printed number, where a caption or an axis gives it.
    """

    metric: str
    heading: str
    scale: float = 1.0
    decimals: int = 2
    higher_is_better: bool = True
    compared: bool = True
    unit: str = ""

    @property
    def labelled(self) -> str:
        """The heading with the unit, for the axis of a figure."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    @property
    def difference_unit(self) -> str:
        """The unit of a difference: that of two shares in % is a point."""
        return "points" if self.unit == "%" else self.unit


@dataclass(frozen=True)
class TableRow:
    """One method.

    Attributes:
        label: What the table calls it.
        values: (seeds, clients, metrics) float64 as stored, NaN where missing.
        ranked: Whether it competes for best and second; a bound does not.
        seeds: Those of ``values``, where rows are paired by seed.
        group: Heading that it stands under with its neighbours of the same group; "" for none.
        quoted: (headings, metrics) float64, the numbers that the paper printed for this method, NaN
            where it has none; None where they are not asked for.
    """

    label: str
    values: NDArray[np.float64]
    ranked: bool = True
    seeds: tuple[int, ...] = ()
    group: str = ""
    quoted: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Cell:
    """One number of the table as it is printed, and the paper's, NaN where there is none."""

    mean: float
    spread: float | None
    decimals: int
    mark: Mark
    quoted: float = math.nan

    @property
    def text(self) -> str:
        """Mean, and the standard deviation over seeds where it is asked for."""
        if math.isnan(self.mean):
            return "–"
        mean = f"{self.mean:.{self.decimals}f}"
        return mean if self.spread is None else f"{mean} ± {self.spread:.{self.decimals}f}"

    @property
    def quote(self) -> str:
        """The paper's number in brackets, "" where there is none."""
        return "" if math.isnan(self.quoted) else f"[{self.quoted:.{self.decimals}f}]"


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
    rows: tuple[TableRow, ...]
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
                    Cell(
                        float(means[r, k, m]), spread[k][m], c.decimals, marks[r][k][m], paper[k][m]
                    )
                    for m, c in enumerate(self.columns)
                ]
                for k in range(len(self.headings))
            ]
            for r, (spread, paper) in enumerate(
                (self._spreads(row, scale), self._quoted(row)) for row in self.rows
            )
        ]

    def _quoted(self, row: TableRow) -> list[list[float]]:
        """Return the paper's numbers, NaN where there are none."""
        if row.quoted is not None:
            return [[float(value) for value in client] for client in row.quoted]
        return [[math.nan] * len(self.columns) for _ in self.headings]

    def _values(self, row: TableRow) -> NDArray[np.float64]:
        """Return (seeds, headings, metrics): a row's values, and their average if asked for."""
        if not self.average:
            return row.values
        return np.concatenate([row.values, nan_mean(row.values, 1)[:, None]], axis=1)

    def _spreads(self, row: TableRow, scale: NDArray[np.float64]) -> list[list[float | None]]:
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
        for row, cells, heading in self._grouped():
            if heading:
                lines.append(table_line([heading, *[""] * (len(head) - 1)]))
            flat = [markdown_cell(cell) for client in cells for cell in client]
            label = row.label if row.ranked else f"*{row.label}*"
            lines.append(table_line([label, *flat]))
        return "\n".join(lines) + "\n"

    def _grouped(self) -> Iterator[tuple[TableRow, list[list[Cell]], str]]:
        """Yield every row with its cells, and its group where that begins with it, else ""."""
        before = ""
        for row, cells in zip(self.rows, self.cells, strict=True):
            yield row, cells, row.group if row.group != before else ""
            before = row.group

    def to_csv(self) -> str:
        """Return one line a method, client and metric: mean and spread over seeds, unrounded.

        The paper's number, in the unit of the mean, is a last column where it was asked for.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        quotes = any(row.quoted is not None for row in self.rows)
        head = ["group", "method", "client", "metric", "mean", "sd_over_seeds", "seeds"]
        writer.writerow([*head, "paper"] if quotes else head)
        for row in self.rows:
            per_seed, quoted = self._values(row), self._quoted(row)
            for k, client in enumerate(self.headings):
                for m, column in enumerate(self.columns):
                    values = per_seed[:, k, m][~np.isnan(per_seed[:, k, m])]
                    mean = f"{values.mean():.6g}" if len(values) else ""
                    spread = f"{values.std(ddof=1):.4g}" if len(values) > 1 else ""
                    entry = [row.group, row.label, client, column.metric, mean, spread, len(values)]
                    paper = quoted[k][m] / column.scale
                    written = "" if math.isnan(paper) else f"{paper:.6g}"
                    writer.writerow([*entry, written] if quotes else entry)
        return out.getvalue()

    def to_latex(self) -> str:
        r"""Return a table with the rules of booktabs; the paper's numbers stand small beside."""
        width, count = len(self.columns), len(self.headings)
        spans = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{tex(c)}}}" for c in self.headings)
        names = " & ".join(tex(c.heading) for _ in self.headings for c in self.columns)
        rules = "".join(
            rf"\cmidrule(lr){{{2 + k * width}-{1 + (k + 1) * width}}}" for k in range(count)
        )
        top = [rf" & {spans} \\", rules] if any(self.headings) else []
        lines = [r"\toprule", *top, rf" & {names} \\", r"\midrule"]
        for row, cells, heading in self._grouped():
            if heading:
                lines += [] if lines[-1] == r"\midrule" else [r"\midrule"]
                lines.append(rf"\multicolumn{{{1 + width * count}}}{{l}}{{{tex(heading)}}} \\")
            flat = " & ".join(latex_cell(cell) for client in cells for cell in client)
            label = tex(row.label) if row.ranked else rf"\textit{{{tex(row.label)}}}"
            lines.append(rf"{label} & {flat} \\")
        return latex_table(self.caption, "l" + "r" * width * count, [*lines, r"\bottomrule"])


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


def latex_table(caption: str, columns: str, lines: Sequence[str]) -> str:
    r"""Return lines of a tabular in a floating table, made smaller where it is too wide.

    Args:
        caption: In plain text.
        columns: The argument of tabular, one letter a column; many of them span the page.
        lines: From \toprule to \bottomrule.
    """
    float_ = "table*" if len(columns) > COLUMNS_A_TEXT_COLUMN else "table"
    opening = [
        "% needs booktabs and adjustbox",
        rf"\begin{{{float_}}}",
        r"\centering",
        rf"\caption{{{tex(caption)}}}",
        r"\begin{adjustbox}{max width=\linewidth}",
        rf"\begin{{tabular}}{{{columns}}}",
    ]
    closing = [r"\end{tabular}", r"\end{adjustbox}", rf"\end{{{float_}}}", ""]
    return "\n".join([*opening, *lines, *closing])


def markdown_cell(cell: Cell) -> str:
    """Return a number as it stands in a Markdown table, with its mark and the paper's number."""
    wrap = {"best": "**{}**", "second": "<ins>{}</ins>", "": "{}"}[cell.mark]
    return " ".join(filter(None, [wrap.format(cell.text), cell.quote]))


def latex_cell(cell: Cell) -> str:
    """Return a number as it stands in a LaTeX table, likewise."""
    text = cell.text.replace("±", r"$\pm$").replace("–", "--")
    wrap = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}[cell.mark]
    return " ".join(
        filter(None, [wrap % text, rf"{{\scriptsize {cell.quote}}}" if cell.quote else ""])
    )


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "²": r"\textsuperscript{2}",
    "–": "--",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def tex(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_TEX.get(character, character) for character in text)

"""Table 4 of Yang et al. 2025: what each part of SCAN-PhysFed is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from physfed_ray.results.groups import Group
from physfed_ray.results.paper import AVERAGE, TABLE_ABLATION, paper_tables
from physfed_ray.results.run_tables import WHOLE, row_of
from physfed_ray.results.tables import (
    Cell,
    ScoreTable,
    TableRow,
    latex_cell,
    latex_table,
    markdown_cell,
    nan_mean,
    table_line,
    tex,
)

HEAD = ("Scanning", "Anatomy", "Paradigm", "Loss")
_FULL = "scan_physfed"
_PLAIN = {"fedavg": "generic", "fedper": "personalised"}
_LOSS = {"mse": ("MSE", r"$\mathcal{L}_{MSE}$"),
         "mse+orth": ("MSE + orth", r"$\mathcal{L}_{MSE}+\tau\mathcal{L}_{orth}$")}  # fmt: skip


@dataclass(frozen=True, order=True)
class Components:
    """A row of the paper's table, in the order of its rows.

    Attributes:
        personalised: Whether each client has a decoder of its own.
        anatomy: Whether the report modulates.
        scanning: Whether the protocol modulates.
        orth: Whether the orthogonal loss is added.
    """

    personalised: bool
    anatomy: bool
    scanning: bool
    orth: bool

    @property
    def paradigm(self) -> str:
        """Generic or personalised."""
        return "personalised" if self.personalised else "generic"

    @property
    def loss(self) -> str:
        """Key of the loss in the data of the paper."""
        return "mse+orth" if self.orth else "mse"

    @property
    def variant(self) -> str:
        """Its name in the data of the paper."""
        scanning, anatomy = ("yes" if on else "no" for on in (self.scanning, self.anatomy))
        return f"scanning={scanning} anatomy={anatomy} paradigm={self.paradigm} loss={self.loss}"


COMPLETE = Components(personalised=True, anatomy=True, scanning=True, orth=True)


def components(group: Group) -> Components | None:
    """Return what a group has of SCAN-PhysFed's parts; None for methods that are no ablation of it.

    FedAvg is the paper's first row: none of the parts. FedPer is the personalised paradigm alone.
    """
    if group.method in _PLAIN:
        personalised = _PLAIN[group.method] == "personalised"
        return Components(personalised, anatomy=False, scanning=False, orth=False)
    if group.method != _FULL:
        return None
    settings = group.runs[0].experiment["method"]
    if settings.get("modulate_skips", False):  # an addition to the paper, not a part of it
        return None
    scanning = bool(settings.get("scanning", True))
    return Components(
        personalised=not settings.get("share_decoder", False),
        anatomy=bool(settings.get("anatomy", True)),
        scanning=scanning,
        orth=scanning and float(settings.get("tau", 1.0)) > 0,
    )


def complete(group: Group) -> bool:
    """Say whether a group is its method in full, so that tables 1 to 3 speak of it."""
    return group.method != _FULL or components(group) == COMPLETE


@dataclass(frozen=True)
class AblationTable:
    """PSNR and SSIM over all clients, one row for each set of parts."""

    parts: tuple[Components, ...]
    scores: ScoreTable

    @property
    def _lines(self) -> list[tuple[Components, str, list[Cell]]]:
        rows = zip(self.parts, self.scores.rows, self.scores.cells, strict=True)
        return [(part, row.label, cells[0]) for part, row, cells in rows]

    def to_markdown(self) -> str:
        """Return a Markdown table in the layout of the paper's table 4."""
        head = [*HEAD, "Method", *(column.heading for column in self.scores.columns)]
        rule = [":---:", ":---:", "---", "---", "---", *["---:"] * len(self.scores.columns)]
        lines = [table_line(head), table_line(rule)]
        for part, label, cells in self._lines:
            marks = ["✓" if on else "×" for on in (part.scanning, part.anatomy)]
            words = [*marks, part.paradigm, _LOSS[part.loss][0], label]
            lines.append(table_line([*words, *map(markdown_cell, cells)]))
        return "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """Return the same for LaTeX."""
        columns = self.scores.columns
        names = " & ".join([*HEAD, "Method", *(tex(column.heading) for column in columns)])
        lines = [r"\toprule", rf"{names} \\", r"\midrule"]
        for part, label, cells in self._lines:
            marks = [r"$\checkmark$" if on else r"$\times$" for on in (part.scanning, part.anatomy)]
            words = [*marks, part.paradigm, _LOSS[part.loss][1], tex(label)]
            lines.append(" & ".join([*words, *map(latex_cell, cells)]) + r" \\")
        caption = self.scores.caption
        body = latex_table(caption, "cclll" + "r" * len(columns), [*lines, r"\bottomrule"])
        return body.replace("% needs ", "% needs amssymb, ", 1)


def ablation(groups: Sequence[Group], *, paper: bool) -> AblationTable | None:
    """Return the ablation of SCAN-PhysFed, None where the groups hold fewer than two sets of parts.

    Args:
        groups: Methods on one backbone.
        paper: Put the paper's numbers beside.
    """
    found = [(part, group) for group in groups if (part := components(group)) is not None]
    if len({part for part, group in found if group.method == _FULL}) < 2:
        return None
    found.sort(key=lambda entry: entry[0])
    clients = [client.id for client in found[0][1].runs[0].clients]
    rows = []
    for part, group in found:
        row = row_of(group.label, group.runs, "test", clients, WHOLE)
        quoted = _quoted(part, group.method) if paper else None
        rows.append(
            TableRow(row.label, nan_mean(row.values, 1)[:, None], seeds=row.seeds, quoted=quoted)
        )
    caption = "Parts of SCAN-PhysFed, mean of the clients (PSNR in dB, SSIM in %)."
    return AblationTable(
        tuple(part for part, _ in found), ScoreTable(caption, ("",), WHOLE, tuple(rows), False)
    )


def _quoted(part: Components, method: str) -> np.ndarray:
    known = paper_tables()
    return np.array(
        [
            [
                known.value(TABLE_ABLATION, method, AVERAGE, column.metric, part.variant)
                for column in WHOLE
            ]
        ]
    )

"""The tables of a comparison: scores with seeds, and the paper's beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from physfed_ray.results.ablation import complete
from physfed_ray.results.groups import KINDS, Group
from physfed_ray.results.paper import TABLE_UNSEEN, TABLES_SEEN, paper_tables
from physfed_ray.results.run_tables import (
    UNITS,
    client_key,
    headings,
    optional_columns,
    phantom_columns,
    phantom_notes,
    policy_label,
    row_of,
    standard_columns,
    undenoised_rows,
)
from physfed_ray.results.runs import ClientEntry, RunResults
from physfed_ray.results.tables import (
    Column,
    ScoreTable,
    TableRow,
    nan_mean,
)
from physfed_ray.rundir.long_table import LongTable

Classical = Mapping[str, Mapping[int, LongTable]]


Scope = Literal["seen", "unseen", "unseen as in the paper"]
"""The clients' own protocols; unseen ones under every policy, or under that of the paper alone."""


@dataclass(frozen=True)
class Served:
    """One way of denoising: a method, and for unseen protocols a policy, else ""."""

    label: str
    policy: str
    group: Group

    @property
    def split(self) -> str:
        """Where its scores are kept."""
        return f"unseen/{self.policy}" if self.policy else "test"

    @property
    def ranked(self) -> bool:
        """Whether it competes: bounds do not."""
        return self.policy != "oracle" and self.group.kind != "bound"


@dataclass(frozen=True)
class Comparison:
    """What a page compares.

    Attributes:
        groups: The methods.
        classical: Rows of ``classical.parquet`` by title and seed.
        paper: Whether the paper's own numbers stand beside.
    """

    groups: Sequence[Group]
    classical: Classical
    paper: bool = False

    @property
    def first(self) -> RunResults:
        """A run to read from what all runs share."""
        return self.groups[0].runs[0]

    def by_backbone(self) -> dict[str, "Comparison"]:
        """Return one comparison for each imaging network, by the network's name."""
        names = dict.fromkeys(group.backbone for group in self.groups)
        return {
            name: replace(self, groups=[g for g in self.groups if g.backbone == name])
            for name in names
        }

    @property
    def inputs(self) -> list[RunResults]:
        """One run a seed: the input is the same for all methods behind one front end.

        It is the scanner's FBP, unless no method reads that.
        """
        first = next((group.images for group in self.groups if not group.images), None)
        return self._one_a_seed(self.groups[0].images if first is None else first)

    @property
    def other_inputs(self) -> dict[str, list[RunResults]]:
        """Likewise what other fixed front ends made, by the front end in words."""
        told = {run.directory.root for run in self.inputs}
        found = {
            images: self._one_a_seed(images)
            for images in dict.fromkeys(group.images for group in self.groups)
        }
        return {
            images: runs
            for images, runs in found.items()
            if not told & {run.directory.root for run in runs}
        }

    def _one_a_seed(self, images: str) -> list[RunResults]:
        groups = [group for group in self.groups if group.images == images]
        by_seed = {run.seed: run for group in reversed(groups) for run in group.runs}
        return [by_seed[seed] for seed in sorted(by_seed)]

    def served(self, scope: Scope = "unseen") -> list[Served]:
        """Return every way of denoising a scope, by method and policy."""
        if scope == "seen":
            return [Served(group.label, "", group) for group in self.groups]
        return [
            Served(policy_label(group.label, policy), policy, group)
            for group in self.groups
            for policy in group.runs[0].policies
            if scope == "unseen" or policy == _policy_of_the_paper(group)
        ]


def scores(comparison: Comparison, scope: Scope, columns: Sequence[Column]) -> ScoreTable:
    """Return the scores of a scope: the input, classical denoisers, and every method."""
    run, unseen = comparison.first, scope != "seen"
    entries, word = (run.unseen, "Unseen") if unseen else (run.clients, "Client")
    before, classical = ("unseen/input", "unseen/classical") if unseen else ("test/input", "test")
    ids = [entry.id for entry in entries]
    rows = _input_rows(comparison, before, ids, columns)
    rows += _classical_rows(comparison, classical, ids, columns)
    for served in comparison.served(scope):
        group = served.group
        row = row_of(served.label, group.runs, served.split, ids, columns, ranked=served.ranked)
        quoted = _quoted(comparison, served, entries, columns)
        rows.append(replace(row, group=KINDS[group.kind], quoted=quoted))
    caption = f"{UNITS}{client_key(entries, '; ')}."
    return ScoreTable(caption, headings(entries, word), tuple(columns), tuple(rows))


def _quoted(
    comparison: Comparison,
    served: Served,
    entries: Sequence[ClientEntry],
    columns: Sequence[Column],
) -> NDArray[np.float64] | None:
    """Return what the paper printed for a row, None where there is nothing or nobody asks."""
    group, unseen = served.group, bool(served.policy)
    table = table_of_the_paper(group.backbone, unseen=unseen)
    if not comparison.paper or table is None or not complete(group):
        return None
    if unseen and served.policy != _policy_of_the_paper(group):
        return None
    metrics = [column.metric for column in columns]
    found = paper_tables().quotes(table, group.method, entries, metrics, unseen=unseen)
    return found if np.isfinite(found).any() else None


def table_of_the_paper(backbone: str, *, unseen: bool) -> int | None:
    """Return which of the paper's tables speaks of a backbone, None where none does.

    Its table of unseen protocols names no backbone: it is taken for the network of table 1.
    """
    seen_in = TABLES_SEEN.get(backbone)
    if unseen:
        return TABLE_UNSEEN if seen_in == min(TABLES_SEEN.values()) else None
    return seen_in


def _policy_of_the_paper(group: Group) -> str:
    """Return how the paper served unseen protocols with a method."""
    if group.method == "scan_physfed":
        return "pvqs"
    return "mean_of_scores" if group.kind == "personalised" else "shared"


def phantoms(comparison: Comparison, kind: str, scope: Scope) -> ScoreTable | None:
    """Return what was measured on a kind of phantom, None where no run measured it.

    Args:
        comparison: The methods.
        kind: Such as "edge" or "discs".
        scope: Where; only policies that run one model are measured on phantoms.
    """
    run, unseen = comparison.first, scope != "seen"
    runs = [run for group in comparison.groups for run in group.runs]
    columns = tuple(dict.fromkeys(column for run in runs for column in phantom_columns(run, kind)))
    entries, word = (run.unseen, "Unseen") if unseen else (run.clients, "Client")
    ids = [entry.id for entry in entries]
    rows = []
    for served in comparison.served(scope):
        split = f"{served.split}/{kind}" if unseen else kind
        row = row_of(served.label, served.group.runs, split, ids, columns, ranked=served.ranked)
        if np.isfinite(row.values).any():
            rows.append(replace(row, group=KINDS[served.group.kind]))
    if not columns or not rows:
        return None
    rows = [*undenoised_rows(comparison.inputs, kind, ids, columns, unseen=unseen), *rows]
    caption = "; ".join(filter(None, dict.fromkeys(phantom_notes(run, kind) for run in runs)))
    return ScoreTable(caption, headings(entries, word), columns, tuple(rows))


def averages(table: ScoreTable) -> ScoreTable:
    """Return a table's averages over clients alone, every column with its spread over seeds."""
    rows = tuple(
        replace(row, values=nan_mean(row.values, 1)[:, None], quoted=None) for row in table.rows
    )
    units = table.caption.split(";")[0]  # what follows says which client has which number
    return ScoreTable(f"{units.rstrip('.')}.", ("",), table.columns, rows, average=False)


def window_columns(run: RunResults) -> list[Column]:
    """Return the columns of the RMSE, the clinical windows, and optional metrics."""
    return [*standard_columns(run), *optional_columns(run)]


def _input_rows(
    comparison: Comparison, split: str, ids: Sequence[str], columns: Sequence[Column]
) -> list[TableRow]:
    """Return the input, and what each other front end makes from the same sinograms."""
    rows = [row_of("Input", comparison.inputs, split, ids, columns)]
    return rows + [
        row_of(f"Input ({images})", runs, split, ids, columns)
        for images, runs in comparison.other_inputs.items()
    ]


def _classical_rows(
    comparison: Comparison, split: str, clients: Sequence[str], columns: Sequence[Column]
) -> list[TableRow]:
    rows = []
    for title, by_seed in comparison.classical.items():
        values = np.full((len(by_seed), len(clients), len(columns)), np.nan)
        for s, seed in enumerate(sorted(by_seed)):
            for m, column in enumerate(columns):
                found = by_seed[seed].where(split=split, metric=column.metric).means("client")
                values[s, :, m] = [found.get(client, np.nan) for client in clients]
        rows.append(TableRow(title, values, seeds=tuple(sorted(by_seed))))
    return rows

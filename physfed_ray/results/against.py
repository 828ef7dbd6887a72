"""How far every method is from one of them, slice by slice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from physfed_ray.errors import PhysFedError
from physfed_ray.results.compare_tables import Comparison, Scope, Served
from physfed_ray.results.grids import Grid
from physfed_ray.results.groups import Group, full_names
from physfed_ray.results.runs import RunResults
from physfed_ray.results.tables import Column


@dataclass(frozen=True)
class Differences:
    """A method minus another in one metric.

    Attributes:
        seeds: Mean over clients, each the mean over its slices, as stored, (seeds,).
        higher: Share of all slices on which the first is higher.
    """

    seeds: NDArray[np.float64]
    higher: float

    def text(self, column: Column) -> str:
        """Return mean, standard deviation over seeds, and share, as a table prints them."""
        digits = column.decimals
        values = column.scale * self.seeds
        spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{values.mean():+.{digits}f}{spread} ({self.higher:.0%})"


def baseline(groups: Sequence[Group], name: str) -> Group:
    """Return the method that a user names.

    Args:
        groups: The methods of a comparison.
        name: A label, followed by a comma and the imaging network where several have the label.

    Raises:
        PhysFedError: None has this name, or several have.
    """
    full = dict(zip(full_names(groups), groups, strict=True))
    found = [group for whole, group in full.items() if name in (group.label, whole)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"'{whole}'" for whole in full)
    problem = "several methods here have" if found else "no method here has"
    raise PhysFedError(f"--against '{name}': {problem} this name; they are {known}")


def against(
    comparison: Comparison, base: Group, scope: Scope, columns: Sequence[Column]
) -> Grid | None:
    """Compare every method with one, metric by metric.

    Args:
        comparison: The methods; the one need not be among them.
        base: The one.
        scope: Where they were scored; methods that serve it by the same policy are compared.
        columns: Metrics of single slices; others are left out.

    Returns:
        A row for each metric and a column for each other method; None where there is nothing to
        compare.
    """
    served = replace(comparison, groups=[base]).served(scope)
    if not served:
        return None
    others = [
        other
        for other in comparison.served(scope)
        if other.policy == served[0].policy and other.group.runs != base.runs
    ]
    rows = []
    for column in columns:
        found = [differences(other, served[0], column.metric) for other in others]
        if any(found):
            cells = ("–" if one is None else one.text(column) for one in found)
            unit = f" ({column.difference_unit})" if column.difference_unit else ""
            heading = column.heading if column.heading.endswith(")") else f"{column.heading}{unit}"
            rows.append((heading, *cells))
    return Grid(("", *(other.label for other in others)), rows) if rows else None


def differences(first: Served, second: Served, metric: str) -> Differences | None:
    """Return the first minus the second over the seeds and slices that both have."""
    runs = {run.seed: run for run in second.group.runs}
    seeds, higher = [], []
    for run in first.group.runs:
        other = _slices(runs[run.seed], second.split, metric) if run.seed in runs else {}
        of_client: dict[str, list[float]] = {}
        for key, value in _slices(run, first.split, metric).items():
            difference = value - other.get(key, np.nan)
            if np.isfinite(difference):
                of_client.setdefault(key[0], []).append(difference)
        if of_client:
            seeds.append(np.mean([np.mean(values) for values in of_client.values()]))
            higher += [value > 0 for values in of_client.values() for value in values]
    return Differences(np.array(seeds), float(np.mean(higher))) if seeds else None


def _slices(run: RunResults, split: str, metric: str) -> dict[tuple[str, str, int], float]:
    """Return the value of every slice by client, patient and place."""
    rows = run.slices.where(split=split, metric=metric)
    keys = zip(*(rows.column(name) for name in ("client", "patient", "slice")), strict=True)
    return dict(zip(keys, rows.values.tolist(), strict=True))

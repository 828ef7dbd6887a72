"""What a comparison says beside scores: costs, the state of the modulation, settings."""

import math
from collections.abc import Sequence

from physfed_ray.evaluation.compare_tables import Comparison
from physfed_ray.evaluation.groups import Group, backbone_title
from physfed_ray.evaluation.report_page import duration
from physfed_ray.evaluation.runs import finite_mean
from physfed_ray.evaluation.tables import CLIENTS_SHOWN, table_line

METHODS_IN_COLUMNS = 6


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
    """Return the settings that all methods share, and a Markdown table of those that differ.

    The table has a column a method, or a row where they are many.
    """
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    found = {key: [group.settings.get(key, "–") for group in groups] for key in keys}
    shared = [(key, values[0]) for key, values in found.items() if len(set(values)) == 1]
    differing = {key: values for key, values in found.items() if len(set(values)) > 1}
    several = len({group.backbone for group in groups}) > 1
    names = [
        f"{group.label}, {backbone_title(group.backbone)}" if several else group.label
        for group in groups
    ]
    if not differing:
        return shared, None
    if len(groups) <= METHODS_IN_COLUMNS:
        rows = [[f"`{key}`", *values] for key, values in differing.items()]
        return shared, markdown(["Setting", *names], rows)
    rows = [
        [name, ", ".join(f"`{key}` {values[k]}" for key, values in differing.items()
                         if values[k] != "–")]
        for k, name in enumerate(names)
    ]  # fmt: skip
    return shared, markdown(["Method", "settings that are not those of all"], rows, numbers=False)


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


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Return a Markdown table whose first column holds words, as do the others unless numbers."""
    rule = ["---"] + ["---:" if numbers else "---"] * (len(head) - 1)
    return "\n".join(table_line(line) for line in (head, rule, *rows)) + "\n"


def _range(values: Sequence[float]) -> str:
    kept = [v for v in values if math.isfinite(v)]
    if not kept:
        return "–"
    return f"{finite_mean(kept):.4g} ({min(kept):.4g} to {max(kept):.4g})"

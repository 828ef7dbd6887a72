"""What a comparison says beside scores: costs, the state of the modulation, settings."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from physfed_ray.results.compare_tables import Comparison
from physfed_ray.results.denoisers import DENOISERS
from physfed_ray.results.groups import Group, full_names
from physfed_ray.results.runs import RunResults, finite_mean
from physfed_ray.results.tables import CLIENTS_SHOWN, table_line
from physfed_ray.rundir.run_directory import LEARNING_RATES, RunDirectory
from physfed_ray.words import duration

METHODS_IN_COLUMNS = 6


def costs(comparison: Comparison) -> str:
    """Return time, bytes and parameters of every method as a Markdown table.

    Times are medians over seeds and over rounds.
    """
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
                duration(median(s["wall_s"] for s in summaries)),
                f"{median(seconds):.2f}",
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
    if not differing:
        return shared, None
    names = full_names(groups)
    if len(groups) <= METHODS_IN_COLUMNS:
        rows = [[f"`{key}`", *values] for key, values in differing.items()]
        return shared, markdown(["Setting", *names], rows)
    rows = [
        [name, ", ".join(f"`{key}` {values[k]}" for key, values in differing.items()
                         if values[k] != "–")]
        for k, name in enumerate(names)
    ]  # fmt: skip
    return shared, markdown(["Method", "settings that are not those of all"], rows, numbers=False)


def learning_rates(groups: Sequence[Group]) -> str | None:
    """Return what a suite's trials scored at each learning rate, None where none were made.

    A Markdown table of PSNR on validation patients with the choice in bold, and how it was made.
    """
    trials = [_trials(group.runs[0]) for group in groups]
    rates = sorted({float(rate) for found in trials for rate in found.get("validation_psnr", {})})
    rows = []
    for name, found in zip(full_names(groups), trials, strict=True):
        scores = {float(rate): score for rate, score in found.get("validation_psnr", {}).items()}
        if scores:
            ends = min(scores), max(scores)
            rows.append([name, *(_score(scores, r, found["chosen"], ends) for r in rates)])
    if not rows:
        return None
    made = {(found["rounds"], found["seed"]) for found in trials if found}
    words = " or ".join(f"{rounds} rounds with seed {seed}" for rounds, seed in sorted(made))
    return (
        f"Mean PSNR on validation patients in dB after {words}. The best is bold, and its rate "
        "was used for all seeds; where it is at an edge of the grid, a better one may lie "
        "outside.\n\n" + markdown(["Method", *(f"{rate:g}" for rate in rates)], rows)
    )


def _trials(run: RunResults) -> Mapping[str, Any]:
    """Return what ``learning_rates.json`` of a run's suite says of the run's method."""
    folder = run.directory.local_path
    if folder is None:
        return {}
    suite = RunDirectory(folder.absolute().parent.parent)
    if not suite.has(LEARNING_RATES):
        return {}
    found = suite.read_json(LEARNING_RATES)
    return dict(found.get(run.name.removesuffix(f"-seed{run.seed}"), {}))


def _score(
    scores: Mapping[float, float | None], rate: float, chosen: float | None, ends: Sequence[float]
) -> str:
    if rate not in scores:
        return "–"
    score = scores[rate]
    text = "diverged" if score is None else f"{score:.2f}"
    if rate != chosen:
        return text
    return f"**{text}**{' (edge)' if rate in ends else ''}"


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
            ranges.append([_with_unit(title), _range(found)])
        return markdown(["Denoiser", "mean strength (range)"], ranges)
    rows = []
    for title, by_seed in comparison.classical.items():
        cells = []
        for entry in entries:
            chosen = [t.where(split="strength", client=entry.id).values for t in by_seed.values()]
            values = sorted({f"{v:.3g}" for found in chosen for v in found}, key=float)
            cells.append(", ".join(values) or "–")
        rows.append([_with_unit(title), *cells])
    return markdown(["Denoiser", *(entry.id for entry in entries)], rows)


def _with_unit(title: str) -> str:
    """Return a denoiser's title with the unit of its strength."""
    units = {denoiser.title: denoiser.unit for denoiser in DENOISERS.values()}
    return f"{title} ({units[title]})" if title in units else title


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Return a Markdown table whose first column holds words, as do the others unless numbers."""
    rule = ["---"] + ["---:" if numbers else "---"] * (len(head) - 1)
    return "\n".join(table_line(line) for line in (head, rule, *rows)) + "\n"


def _range(values: Sequence[float]) -> str:
    kept = [v for v in values if math.isfinite(v)]
    if not kept:
        return "–"
    return f"{finite_mean(kept):.4g} ({min(kept):.4g} to {max(kept):.4g})"

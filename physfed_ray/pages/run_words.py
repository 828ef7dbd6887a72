"""The words, numbers and plain tables of ``report.html``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from physfed_ray.experiment.front_end import FrontEndSpec
from physfed_ray.pages.data_words import data_words
from physfed_ray.results.bounds import bound_words
from physfed_ray.results.grids import Grid
from physfed_ray.results.groups import flatten
from physfed_ray.results.runs import POLICIES, ClientEntry, RunResults, finite_mean
from physfed_ray.results.summaries import EXTREMES, extremes, leader, shown
from physfed_ray.results.tables import CLIENTS_SHOWN, ScoreTable
from physfed_ray.words import count, duration

CLIENTS_PER_BLOCK, COLUMNS_PER_BLOCK = 8, 16  # what a projector and a landscape page hold


@dataclass(frozen=True)
class TableView:
    """A score table cut into blocks of columns that fit a page.

    Attributes:
        title: Its heading.
        table: The table, or its summary.
        complete: The file that holds every client, where the table is a summary.
    """

    title: str
    table: ScoreTable
    complete: str = ""

    @property
    def bounds(self) -> str:
        """What the rows that do not compete are."""
        return bound_words(self.table)

    @property
    def chunks(self) -> list[list[int]]:
        """Indices of the headings of each block; the average is in the last one."""
        count = len(self.table.clients)
        width = min(CLIENTS_PER_BLOCK, max(1, COLUMNS_PER_BLOCK // len(self.table.columns)))
        blocks = [list(range(k, min(k + width, count))) for k in range(0, count, width)]
        if self.table.average:
            blocks[-1].append(count)
        return blocks


def page(
    run: RunResults, tables: Mapping[str, ScoreTable], grids: Mapping[str, Grid]
) -> dict[str, Any]:
    """Return what the template prints besides the figures.

    Args:
        run: The run.
        tables: The score tables by name, as ``write_tables`` returns them.
        grids: The plain tables by name.
    """
    return {
        "title": f"{run.title} on {run.experiment.get('name', run.name)}",
        "name": run.name,
        "lead": _lead(run),
        "notices": list(filter(None, (_unfinished(run), run.scanner_notice, _front_end(run)))),
        "numbers": _numbers(run),
        "contents": _contents(tables, grids),
        "seen_tables": _views(tables, "seen"),
        "unseen_tables": _views(tables, "unseen"),
        "seen_extremes": _extremes(tables.get("seen"), run.clients),
        "unseen_extremes": _extremes(tables.get("unseen"), run.unseen),
        "grids": grids,
        "policies": [(POLICIES[p][0] or run.title, POLICIES[p][1]) for p in run.policies],
        "routes_sentence": _routes_sentence(run),
        "modulation_sentences": [_last_sentence(run), _swap_sentence(run)],
        "missing_sentence": _missing_sentence(run),
        "data": data_words({k: v for k, v in run.summary.get("data", {}).items() if k != "splits"}),
        "settings": _settings(run),
        "command": run.summary.get("command", ""),
    }


def _front_end(run: RunResults) -> str:
    """Say what the input is, where it is not all that the networks read, or not the scanner's."""
    end = FrontEndSpec.model_validate(run.experiment.get("front_end", "fbp")).make()
    if end.prepares:
        return (
            f"The input is not the scanner's own reconstruction: the front end ({end.title}) made "
            "it from the sinograms, with the settings that are listed with the data."
        )
    if end.fields:
        return (
            f"Each client learns its own reconstruction of its sinograms ({end.title}). The input "
            "is the FBP that this starts from."
        )
    return ""


def _lead(run: RunResults) -> str:
    training = run.experiment.get("training", {})
    window = f"{run.window_hu[0]:g} to {run.window_hu[1]:g} HU"
    unseen = f" and {len(run.unseen)} unseen protocols" if run.unseen else ""
    return (
        f"{len(run.clients)} clients{unseen}, round {run.rounds} of "
        f"{training.get('rounds', run.rounds)}, seed {run.seed}. PSNR and SSIM are in the window "
        f"of {window} unless a table says otherwise."
    )


def _unfinished(run: RunResults) -> str:
    if run.finished:
        return ""
    return (
        f"This run has not finished: it stands at round {run.rounds}, and the final evaluation is "
        "missing. What is shown comes from the rounds that exist; --resume goes on with it."
    )


def _numbers(run: RunResults) -> list[dict[str, str]]:
    """Return the headline numbers, only those that the run has."""
    found: list[tuple[str, str]] = []
    split = "test" if run.client_means("test", "psnr") else "validation"
    before = finite_mean(run.client_means(f"{split}/input", "psnr").values())
    after = finite_mean(run.client_means(split, "psnr").values())
    if math.isfinite(after):
        found.append((f"{after:.2f} dB", f"mean PSNR of the clients, {split} patients"))
    if math.isfinite(after - before):
        found.append((f"{after - before:+.2f} dB", f"against the low-dose input ({before:.2f} dB)"))
    for policy in ("pvqs", "shared"):
        if policy in run.policies:
            gain = finite_mean(run.client_means(f"unseen/{policy}", "psnr").values())
            name = POLICIES[policy][0] or run.title
            found.append((f"{gain:.2f} dB", f"mean PSNR on unseen protocols ({name})"))
    if "wall_s" in run.summary:
        found.append((duration(run.summary["wall_s"]), f"on {run.summary.get('device', '?')}"))
    parameters = run.summary.get("parameters", {})
    if "shared" in parameters and "private" in parameters:
        shared, private = (count(parameters[k]) for k in ("shared", "private"))
        found.append((shared, f"parameters shared by all; {private} private to each client"))
    return [{"value": value, "meaning": meaning} for value, meaning in found]


def _contents(tables: Mapping[str, ScoreTable], grids: Mapping[str, Grid]) -> list[tuple[str, str]]:
    unseen = [("unseen", "Unseen protocols")] if "unseen" in tables or "routes" in grids else []
    return [
        ("seen", "Seen protocols"),
        *unseen,
        ("training", "Training"),
        ("costs", "Time and data sent"),
        ("data", "Data and protocols"),
        ("settings", "Settings"),
    ]


def _views(tables: Mapping[str, ScoreTable], name: str) -> list[TableView]:
    titles = {
        name: "Whole image",
        f"{name}_body": "Body pixels alone",
        f"{name}_optional": "Optional metrics",
        f"{name}_edges": "Sharpness of edges",
        f"{name}_discs": "Detectability of faint discs",
    }
    views = []
    for key, title in titles.items():
        if key in tables:
            table = shown(tables[key])
            views.append(TableView(title, table, "" if table is tables[key] else f"{key}.csv"))
    return views


def _extremes(table: ScoreTable | None, entries: Sequence[ClientEntry]) -> tuple[str, Grid] | None:
    """Return a sentence and the clients that gain most and least, None where all are shown."""
    if table is None or len(entries) <= CLIENTS_SHOWN or (grid := extremes(table, entries)) is None:
        return None
    return (
        f"The {EXTREMES} that gain most PSNR over their own input with {leader(table).label}, and "
        f"the {EXTREMES} that gain least, on the whole image.",
        grid,
    )


def _routes_sentence(run: RunResults) -> str:
    routed = [u for u in run.unseen if u.route and u.nearest]
    same = sum(u.route is not None and u.route[0] == u.nearest for u in routed)
    agreement = f" They agree for {same} of {len(routed)}." if routed else ""
    return (
        "PVQS sends an unseen protocol to the client whose code has the largest cosine with its "
        f"own; beside it stands the client whose seven numbers are nearest.{agreement}"
    )


def followed_modulation(run: RunResults) -> list[str]:
    """Return the quantities of the modulation that more than one round has."""
    rows = run.metrics.where(split="modulation")
    names = [str(name) for name in rows.distinct("metric")]
    return [n for n in names if len(rows.where(metric=n).distinct("round")) > 1]


def _last_sentence(run: RunResults) -> str:
    """Say what of the modulation was measured at the end alone."""
    followed = {*followed_modulation(run), "swap_psnr_drop"}
    names = run.metrics.where(split="modulation").distinct("metric")
    values = [
        f"{name.replace('_', ' ')} {finite_mean(run.client_means('modulation', name).values()):.3g}"
        for name in names
        if name not in followed
    ]
    return f"At the end: {', '.join(values)}." if values else ""


def _swap_sentence(run: RunResults) -> str:
    drops = run.client_means("modulation", "swap_psnr_drop")
    drops = {c: v for c, v in drops.items() if math.isfinite(v)}
    if not drops:
        return ""
    worst = max(drops, key=lambda client: drops[client])
    return (
        "Given the code least like its own, a client's PSNR changes by "
        f"{-finite_mean(drops.values()):+.2f} dB on average (most harmed: {worst}, "
        f"{-drops[worst]:+.2f} dB); near 0 the codes do not matter to the image."
    )


def _missing_sentence(run: RunResults) -> str:
    counts = run.curve("system", "missing").get("server", ([], []))
    total = int(sum(counts[1]))
    if total == 0 and not run.missing:
        return f"No client was missing in any of the {run.rounds} rounds."
    rounds = sum(value > 0 for value in counts[1])
    return f"Clients were missing {total or len(run.missing)} times, in {rounds} rounds."


def _settings(run: RunResults) -> list[tuple[str, list[tuple[str, str]]]]:
    """Group the resolved experiment by its top-level keys."""
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    plain = []
    for key, value in run.experiment.items():
        if key in ("clients", "unseen"):
            continue
        if isinstance(value, Mapping):
            if value:
                groups.append((key, flatten(value)))
        else:
            plain += flatten(value, key)
    computed = {k: run.summary[k] for k in ("device", "precision") if k in run.summary}
    modules = run.summary.get("parameters", {}).get("by_module", {})
    computed |= {f"parameters of {name}": f"{number:,}" for name, number in modules.items()}
    if computed:
        groups.append(("computed with", flatten(computed)))
    return [("experiment", plain), *groups]

"""Compare runs of several methods and seeds: one Markdown page with its pictures beside it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from physfed_ray.pages.compare_sections import (
    Section,
    parts,
    plain_table,
    seen,
    together,
    training,
    unseen,
)
from physfed_ray.pages.figures import sparing_garbage
from physfed_ray.results import compare_facts as facts
from physfed_ray.results import compare_tables as tables
from physfed_ray.results.against import baseline
from physfed_ray.results.classical import add_classical, has_classical
from physfed_ray.results.compare_tables import Comparison
from physfed_ray.results.grids import splits
from physfed_ray.results.groups import Group, classical_runs, flatten, full_names, group_runs
from physfed_ray.results.run_tables import WHOLE
from physfed_ray.results.runs import RunResults, read_results
from physfed_ray.results.tables import nan_mean

READING = re.compile(r"<!-- reading -->(.*?)<!-- /reading -->", re.DOTALL)
READING_MARK = "<!-- the reading goes here -->"
UNREAD = "\n*Nobody has written a reading of these results yet.*\n"


@sparing_garbage()
def compare(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    *,
    classical: bool = False,
    force: bool = False,
    paper: bool = False,
    against: Sequence[str] = (),
) -> Path:
    """Write a page that compares runs, and a folder of its tables and pictures beside it.

    What stands between the markers ``<!-- reading -->`` and ``<!-- /reading -->`` of an existing
    page is kept.

    Args:
        run_dirs: Finished runs; those that differ in their seed alone are averaged.
        out: The Markdown page; ``.md`` is added to a name that lacks it.
        classical: Score the classical denoisers first, for each seed that lacks one of them.
        force: Compare runs of different data all the same.
        paper: Put the numbers that Yang et al. 2025 print beside one's own.
        against: Names of methods, as ``results.against.baseline`` takes them: the page also shows
            the others' differences from each, slice by slice.

    Raises:
        PhysFedError: A directory holds no finished run, the runs cannot be compared, no method has
            a name of ``against``, or the classical denoisers would be scored on other data than
            those of a run.
    """
    runs = [read_results(run_dir) for run_dir in run_dirs]
    groups = group_runs(runs, force=force)
    baselines = {name: baseline(groups, name) for name in against}
    folder = Path(out).with_suffix("") if Path(out).suffix == ".md" else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder.with_name(f"{folder.name}.md")
    if classical:
        _score_classical(runs)
    comparison = Comparison(groups, classical_runs(runs), paper)
    reading = _kept_reading(out)
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(_page(comparison, folder, baselines)))
    text = text.replace(READING_MARK, f"<!-- reading -->{reading}<!-- /reading -->")
    out.write_text(text.strip() + "\n", encoding="utf-8")
    return out


def _score_classical(runs: Sequence[RunResults]) -> None:
    done = {run.seed for run in runs if has_classical(run.directory)}
    for run in runs:
        if run.seed not in done:
            add_classical(run.directory.root)
            done.add(run.seed)


def _kept_reading(out: Path) -> str:
    found = READING.search(out.read_text(encoding="utf-8")) if out.exists() else None
    return found.group(1) if found else UNREAD


def _page(comparison: Comparison, folder: Path, baselines: Mapping[str, Group]) -> Iterable[str]:
    """Yield the page's paragraphs."""
    first, backbones = comparison.first, parts(comparison, folder)
    yield f"# {first.experiment.get('name', first.name)}: methods compared\n"
    yield _summary(comparison)
    for notice in dict.fromkeys(run.scanner_notice for g in comparison.groups for run in g.runs):
        yield f"> {notice}\n" if notice else ""
    yield from (_order(part) for part in backbones)
    yield f"## Reading\n\n{READING_MARK}\n"
    if len(backbones) > 1:
        names = zip(comparison.groups, full_names(comparison.groups), strict=True)
        whole = replace(comparison, groups=[replace(group, label=name) for group, name in names])
        yield from together(Section(whole, folder, baselines=baselines))
    else:
        backbones = [replace(part, baselines=baselines) for part in backbones]
    for part in backbones:
        yield from seen(part)
        if first.unseen:
            yield from unseen(part)
        yield from training(part)
    yield from _record(comparison, Section(comparison, folder))


def _summary(comparison: Comparison) -> str:
    first = comparison.first
    runs = sum(len(group.runs) for group in comparison.groups)
    seeds = sorted({seed for group in comparison.groups for seed in group.seeds})
    low, high = first.window_hu
    return (
        f"{runs} runs of {len(comparison.groups)} methods, seeds {', '.join(map(str, seeds))}; "
        f"{len(first.clients)} clients, {len(first.unseen)} unseen protocols. PSNR and SSIM are "
        f"means over clients, each the mean of its test slices, in the window of {low:g} to "
        f"{high:g} HU unless a table says otherwise; ± is the standard deviation over seeds. "
        "Best bold, second underlined; a row in italics does not compete.\n"
    )


def _order(part: Section) -> str:
    """Say which method has more PSNR than which."""
    means = {
        row.label: float(nan_mean(row.values[..., 0].ravel(), 0))
        for row in tables.scores(part.comparison, "seen", WHOLE).rows
    }
    order = " < ".join(
        f"{label} {means[label]:.2f}" for label in sorted(means, key=means.__getitem__)
    )
    on = f", {part.name}" if part.name else ""
    return f"Mean PSNR on the clients' own protocols{on}, in dB: {order}.\n"


def _record(comparison: Comparison, part: Section) -> Iterable[str]:
    """Yield what is needed to do it again: data, settings, machine, commands."""
    first = comparison.first
    yield "## How it was made\n"
    yield "### Data\n"
    yield from _items(flatten(first.experiment["data"]), skip="cache")
    summary = first.summary.get("data", {})
    yield from _items(flatten({k: v for k, v in summary.items() if k != "splits"}))
    if (patients := splits(first)) is not None:
        yield f"\nPatients / slices of each client, seed {first.seed}:\n"
        yield from plain_table(part, "splits", patients)
    if (chosen := facts.strengths(comparison)) is not None:
        yield "\nStrengths of the classical denoisers, tuned on slices that are not test slices:\n"
        yield chosen
    yield "\n### Settings\n"
    shared, differing = facts.settings(comparison.groups)
    yield from _items(shared)
    yield f"\n{differing or ''}"
    if (rates := facts.learning_rates(comparison.groups)) is not None:
        yield "### Learning rates\n"
        yield rates
    yield "### Machine and versions\n"
    runs = [run for group in comparison.groups for run in group.runs]
    yield from _items(_origins(runs))
    yield "\n### Commands\n\n```"
    yield from dict.fromkeys(_portable(str(run.summary.get("command", ""))) for run in runs)
    yield "```\n"


def _origins(runs: Sequence[RunResults]) -> list[tuple[str, str]]:
    """Return the devices and versions of all runs; where they differ, each value."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        device = ("device", str(run.summary.get("device", "?")))
        for key, value in (device, *flatten(run.experiment.get("provenance", {}))):
            found.setdefault(key, {})[value] = None
    return [(key, "; ".join(values)) for key, values in found.items()]


def _items(entries: Sequence[tuple[str, str]], skip: str | None = None) -> Iterable[str]:
    for key, value in entries:
        if key != skip and value != "–":
            yield f"- {key}: {_portable(value)}"


def _portable(text: str) -> str:
    """Shorten absolute paths to their last part: a page names no machine's folders."""
    return re.sub(r"(?<![\w.:/])/[\w./~+-]+", lambda found: PurePath(found.group()).name, text)

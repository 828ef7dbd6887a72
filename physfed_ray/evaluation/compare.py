"""Compare runs of several methods and seeds: one Markdown page with its pictures beside it."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np
from matplotlib.figure import Figure

from physfed_ray.evaluation import compare_tables as tables
from physfed_ray.evaluation import figures
from physfed_ray.evaluation.classical import CLASSICAL_FILE, add_classical
from physfed_ray.evaluation.compare_panels import compare_panels
from physfed_ray.evaluation.compare_tables import Comparison
from physfed_ray.evaluation.gain_figure import GainPanel, gain_figure
from physfed_ray.evaluation.grids import Grid, first_rows, splits
from physfed_ray.evaluation.groups import classical_runs, group_runs
from physfed_ray.evaluation.report import curve_split
from physfed_ray.evaluation.report_page import flatten
from physfed_ray.evaluation.run_tables import BODY, WHOLE
from physfed_ray.evaluation.runs import POLICIES, ClientEntry, Run, load_run
from physfed_ray.evaluation.summaries import EXTREMES, extremes, leader, shown
from physfed_ray.evaluation.tables import CLIENTS_SHOWN, ScoreTable

READING = re.compile(r"<!-- reading -->(.*?)<!-- /reading -->", re.DOTALL)
READING_MARK = "<!-- the reading goes here -->"
UNREAD = "\n*Nobody has written a reading of these results yet.*\n"
PICTURE_BYTES = 300_000
SEEN_PICTURES, UNSEEN_PICTURES = 3, 2


def compare(
    run_dirs: Sequence[str | Path],
    out: str | Path,
    *,
    classical: bool = False,
    force: bool = False,
) -> Path:
    """Write a page that compares runs, and its pictures and CSV files in a folder beside it.

    What stands between the markers ``<!-- reading -->`` and ``<!-- /reading -->`` of an existing
    page is kept.

    Args:
        run_dirs: Finished runs; those that differ in their seed alone are averaged.
        out: The Markdown page.
        classical: Score the classical denoisers first, for each seed that lacks them.
        force: Compare runs of different data all the same.

    Raises:
        PhysFedError: A directory holds no finished run, or the runs cannot be compared.
    """
    runs = [load_run(run_dir) for run_dir in run_dirs]
    groups = group_runs(runs, force=force)
    if classical:
        _score_classical(runs)
    comparison = Comparison(groups, classical_runs(runs))
    out = Path(out)
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    reading = _kept_reading(out)
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(_page(comparison, folder)))
    text = text.replace(READING_MARK, f"<!-- reading -->{reading}<!-- /reading -->")
    out.write_text(text.strip() + "\n", encoding="utf-8")
    return out


def _score_classical(runs: Sequence[Run]) -> None:
    done = {run.seed for run in runs if run.directory.exists(CLASSICAL_FILE)}
    for run in runs:
        if run.seed not in done:
            add_classical(run.directory.root)
            done.add(run.seed)


def _kept_reading(out: Path) -> str:
    found = READING.search(out.read_text(encoding="utf-8")) if out.exists() else None
    return found.group(1) if found else UNREAD


def _page(comparison: Comparison, folder: Path) -> Iterable[str]:
    """Yield the page's paragraphs."""
    first = comparison.first
    yield f"# {first.experiment.get('name', first.name)}: methods compared\n"
    yield _summary(comparison)
    yield f"## Reading\n\n{READING_MARK}\n"
    yield from _seen(comparison, folder)
    if first.unseen:
        yield from _unseen(comparison, folder)
    yield from _training(comparison, folder)
    yield from _record(comparison, folder)


def _summary(comparison: Comparison) -> str:
    first = comparison.first
    runs = sum(len(group.runs) for group in comparison.groups)
    seeds = sorted({seed for group in comparison.groups for seed in group.seeds})
    means = {
        row.label: float(np.nanmean(row.values[..., 0]))
        for row in tables.seen(comparison, WHOLE).rows
    }
    order = " < ".join(
        f"{label} {means[label]:.2f}" for label in sorted(means, key=means.__getitem__)
    )
    low, high = first.window_hu
    return (
        f"{runs} runs of {len(comparison.groups)} methods, seeds {', '.join(map(str, seeds))}; "
        f"{len(first.clients)} clients, {len(first.unseen)} unseen protocols. PSNR and SSIM are "
        f"means over clients, each the mean of its test slices, in the window of {low:g} to "
        f"{high:g} HU unless a table says otherwise; ± is the standard deviation over seeds. "
        "Best bold, second underlined; a row in italics is a bound that does not compete.\n\n"
        f"Mean PSNR on the clients' own protocols, in dB: {order}.\n"
    )


def _seen(comparison: Comparison, folder: Path) -> Iterable[str]:
    yield "## Protocols seen in training\n"
    whole = tables.seen(comparison, WHOLE)
    yield f"{shown(whole).caption}\n"
    for name, heading, table in (
        ("seen", "Whole image", whole),
        ("seen_body", "Body pixels alone", tables.seen(comparison, BODY)),
    ):
        yield from _score_section(folder, name, heading, table)
    yield from _many_section(folder, "seen_gains", whole, comparison.first.clients)
    windows = tables.averages(tables.seen(comparison, tables.window_columns(comparison.first)))
    yield from _score_section(folder, "seen_windows", "Clinical windows, mean of clients", windows)
    yield from _pairing_section(comparison, of_unseen=False)
    panels = compare_panels(comparison, "test", SEEN_PICTURES)
    yield _picture(folder, "seen_examples", panels, "Denoised slices of seen protocols")


def _unseen(comparison: Comparison, folder: Path) -> Iterable[str]:
    yield "## Unseen protocols\n"
    served = {policy for _, policy, _ in comparison.served()}
    for policy, (name, meaning) in POLICIES.items():
        if policy in served:
            yield f"- {name or 'no suffix'}: {meaning}."
    whole = tables.unseen(comparison, WHOLE)
    yield f"\n{shown(whole).caption}\n"
    for name, heading, table in (
        ("unseen", "Whole image", whole),
        ("unseen_body", "Body pixels alone", tables.unseen(comparison, BODY)),
    ):
        yield from _score_section(folder, name, heading, table)
    yield from _many_section(folder, "unseen_gains", whole, comparison.first.unseen)
    columns = tables.window_columns(comparison.first)
    windows = tables.averages(tables.unseen(comparison, columns))
    heading = "Clinical windows, mean of protocols"
    yield from _score_section(folder, "unseen_windows", heading, windows)
    yield from _pairing_section(comparison, of_unseen=True)
    yield from _routes(comparison, folder)
    panels = compare_panels(comparison, "unseen", UNSEEN_PICTURES)
    yield _picture(folder, "unseen_examples", panels, "Denoised slices of unseen protocols")


def _score_section(folder: Path, name: str, heading: str, table: ScoreTable) -> Iterable[str]:
    (folder / f"{name}.csv").write_text(table.to_csv(), encoding="utf-8")
    yield f"### {heading}\n"
    yield shown(table).to_markdown()
    yield f"Every number with its spread: [{name}.csv]({folder.name}/{name}.csv).\n"


def _many_section(
    folder: Path, name: str, table: ScoreTable, entries: Sequence[ClientEntry]
) -> Iterable[str]:
    """Yield the best and worst of many clients, and a figure of them all."""
    if len(entries) <= CLIENTS_SHOWN or (grid := extremes(table, entries)) is None:
        return
    yield "### Best and worst\n"
    yield (
        f"The {EXTREMES} protocols that gain most PSNR over their own input with "
        f"{leader(table).label}, and the {EXTREMES} that gain least.\n"
    )
    yield from _grid(folder, name, grid)
    figure = gain_figure(table, entries, [GainPanel(r.label, r) for r in table.rows[1:]])
    yield _picture(folder, name, figure, "PSNR over that of the input, one dot a protocol")


def _grid(folder: Path, name: str, grid: Grid) -> Iterable[str]:
    """Yield a grid, and a link to all of its rows where the page does not show them."""
    yield tables.markdown(grid.head, grid.rows)
    if grid.complete:
        (folder / f"{name}.csv").write_text(grid.to_csv(), encoding="utf-8")
        yield f"All {len(grid.complete)} rows: [{name}.csv]({folder.name}/{name}.csv).\n"


def _pairing_section(comparison: Comparison, *, of_unseen: bool) -> Iterable[str]:
    found = tables.pairings(comparison, of_unseen=of_unseen)
    if found is None:
        return
    best, rows = found
    yield f"### {best} against the others\n"
    yield (
        "PSNR differences on the whole image, paired by seed and client, with Wilcoxon's "
        "signed-rank test. Clients of one run share parameters and test patients, so that the "
        "pairs are not independent: read p as a guide.\n"
    )
    yield tables.markdown(["Against", "difference (dB)", "pairs won", "p"], rows)


def _routes(comparison: Comparison, folder: Path) -> Iterable[str]:
    """Yield where PVQS sent each unseen protocol, seed by seed."""
    rows = []
    for group in comparison.groups:
        for entry_index, entry in enumerate(comparison.first.unseen):
            routes = [run.unseen[entry_index].route for run in group.runs]
            if not all(routes):
                continue
            sent = ", ".join(f"{r[0]} ({r[1]:.3f})" for r in routes if r)
            nearest = group.runs[0].unseen[entry_index].nearest or "–"
            rows.append((group.label, entry.label, sent, nearest))
    if rows:
        yield "### Where PVQS sent each unseen protocol\n"
        yield "Client and cosine of the codes for each seed, beside the client nearest in g.\n"
        head = ("Method", "unseen protocol", "sent to", "nearest by g")
        yield from _grid(folder, "routes", first_rows(head, rows))


def _training(comparison: Comparison, folder: Path) -> Iterable[str]:
    yield "## Training\n"
    split = curve_split(comparison.first)
    curves = {g.label: [run.curve(split, "psnr") for run in g.runs] for g in comparison.groups}
    if all(curve for seeds in curves.values() for curve in seeds):
        figure = figures.compare_curves(curves, split)
        yield _picture(folder, "curves", figure, f"Mean PSNR on {split} patients over the rounds")
    yield "### State of the modulation at the end\n"
    yield (
        "Mean over clients and seeds, and the range. A modulation with spreads near 0 and a "
        "`swap_psnr_drop` near 0 dB (what a client loses with the code least like its own) does "
        "nothing.\n"
    )
    yield tables.modulation(comparison) or "None of these methods has one.\n"
    yield "### Cost\n"
    yield tables.costs(comparison)


def _record(comparison: Comparison, folder: Path) -> Iterable[str]:
    """Yield what is needed to do it again: data, settings, machine, commands."""
    first = comparison.first
    yield "## How it was made\n"
    yield "### Data\n"
    yield from _items(flatten(first.experiment["data"]), skip="cache")
    summary = first.summary.get("data", {})
    yield from _items(flatten({k: v for k, v in summary.items() if k != "splits"}))
    if (patients := splits(first)) is not None:
        yield f"\nPatients / slices of each client, seed {first.seed}:\n"
        yield from _grid(folder, "splits", patients)
    if (chosen := tables.strengths(comparison)) is not None:
        yield "\nStrengths of the classical denoisers, tuned on slices that are not test slices:\n"
        yield chosen
    yield "\n### Settings\n"
    shared, differing = tables.settings(comparison.groups)
    yield from _items(shared)
    yield f"\n{differing or ''}"
    yield "### Machine and versions\n"
    devices = {str(run.summary.get("device", "?")) for g in comparison.groups for run in g.runs}
    yield from _items([("device", "; ".join(sorted(devices)))])
    yield from _items(flatten(first.experiment.get("provenance", {})))
    yield "\n### Commands\n\n```"
    runs = [run for group in comparison.groups for run in group.runs]
    yield from dict.fromkeys(_portable(str(run.summary.get("command", ""))) for run in runs)
    yield "```\n"


def _items(entries: Sequence[tuple[str, str]], skip: str | None = None) -> Iterable[str]:
    for key, value in entries:
        if key != skip and value != "–":
            yield f"- {key}: {_portable(value)}"


def _portable(text: str) -> str:
    """Shorten absolute paths to their last part: a page names no machine's folders."""
    return re.sub(r"(?<![\w.:/])/[\w./~+-]+", lambda found: PurePath(found.group()).name, text)


def _picture(folder: Path, name: str, figure: Figure | None, alt: str) -> str:
    if figure is None:
        return ""
    (folder / f"{name}.png").write_bytes(figures.png(figure, limit=PICTURE_BYTES))
    return f"![{alt}]({folder.name}/{name}.png)\n"

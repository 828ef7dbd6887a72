"""The sections of a comparison page: scores, pairings, pictures, courses of training and costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from matplotlib.figure import Figure

from physfed_ray.pages import figures
from physfed_ray.pages.compare_panels import compare_panels
from physfed_ray.pages.gain_figure import GainPanel, gain_figure
from physfed_ray.pages.method_figures import (
    MethodStyle,
    method_boxes,
    method_styles,
    training_courses,
)
from physfed_ray.pages.run_page import curve_split
from physfed_ray.results import compare_facts as facts
from physfed_ray.results import compare_tables as tables
from physfed_ray.results.ablation import ablation
from physfed_ray.results.against import against
from physfed_ray.results.bounds import bound_words
from physfed_ray.results.compare_courses import courses, courses_csv, slice_scores
from physfed_ray.results.compare_pairings import lead, pairings
from physfed_ray.results.compare_tables import Comparison, Scope
from physfed_ray.results.grids import Grid, first_rows
from physfed_ray.results.groups import Group, backbone_title
from physfed_ray.results.paper import CITATION, TABLE_ABLATION, paper_tables
from physfed_ray.results.run_tables import BODY, WHOLE, every_column
from physfed_ray.results.runs import POLICIES, ClientEntry
from physfed_ray.results.summaries import EXTREMES, extremes, leader, shown
from physfed_ray.results.tables import CLIENTS_SHOWN, ScoreTable

PICTURE_BYTES = 300_000
_UNSEEN: tuple[tuple[Scope, str, str], ...] = (
    ("unseen as in the paper", "unseen_paper", "Served as in the paper"),
    ("unseen", "unseen", "Whole image, every policy"),
)


@dataclass(frozen=True)
class Section:
    """A part of the page: methods on one imaging network.

    Attributes:
        comparison: Its methods.
        folder: Where its files go.
        name: Follows its headings, and begins the names of its files, where there are several.
        baselines: Methods from which all others' differences are shown, by name.
    """

    comparison: Comparison
    folder: Path
    name: str = ""
    baselines: Mapping[str, Group] = field(default_factory=dict)

    def file(self, name: str) -> str:
        """Return the name of a file of this part."""
        backbone = self.comparison.groups[0].backbone
        return f"{backbone}_{name}" if self.name else name

    def heading(self, text: str) -> str:
        """Return a heading of this part."""
        return f"## {text}, {self.name}\n" if self.name else f"## {text}\n"

    def write(self, name: str, content: str) -> str:
        """Write a file and return a link to it."""
        (self.folder / self.file(name)).write_text(content, encoding="utf-8")
        return f"[{self.file(name)}]({self.folder.name}/{self.file(name)})"

    def picture(self, name: str, figure: Figure | None, alt: str) -> str:
        """Write a picture and return what shows it, "" without a figure."""
        if figure is None:
            return ""
        file = self.file(f"{name}.png")
        (self.folder / file).write_bytes(figures.png(figure, limit=PICTURE_BYTES))
        return f"![{alt}]({self.folder.name}/{file})\n"


def parts(comparison: Comparison, folder: Path) -> list[Section]:
    """Return one part for each imaging network."""
    found = comparison.by_backbone()
    several = len(found) > 1
    return [
        Section(part, folder, backbone_title(name) if several else "")
        for name, part in found.items()
    ]


def together(part: Section) -> Iterable[str]:
    """Yield means, differences and pictures of all methods on all imaging networks."""
    yield part.heading("All networks")
    comparison = part.comparison
    columns = every_column(comparison.first)
    scopes: list[tuple[Scope, str, str]] = [("seen", "all_seen", "Mean of clients")]
    if comparison.first.unseen:
        scopes.append(("unseen as in the paper", "all_unseen", "Mean of unseen protocols"))
    for scope, name, heading in scopes:
        table = tables.averages(tables.scores(comparison, scope, columns))
        yield from _score_section(part, name, heading, table)
    yield from _against_sections(part, "seen")
    if comparison.first.unseen:
        yield from _against_sections(part, "unseen")
    yield from _panels(part, "test", "Slices of each client")
    if comparison.first.unseen:
        yield from _panels(part, "unseen", "Slices of unseen protocols")


def seen(part: Section) -> Iterable[str]:
    """Yield the clients' own protocols: tables, tests, boxes and pictures."""
    comparison = part.comparison
    yield part.heading("Protocols seen in training")
    whole = tables.scores(comparison, "seen", WHOLE)
    yield f"{shown(whole).caption}\n"
    if words := bound_words(whole):
        yield f"{words}\n"
    yield from _paper_note(comparison, unseen=False)
    yield from _score_section(part, "seen", "Whole image", whole, lead(comparison, "seen"))
    body = tables.scores(comparison, "seen", BODY)
    yield from _score_section(part, "seen_body", "Body pixels alone", body)
    yield from _many_section(part, "seen_gains", whole, comparison.first.clients)
    columns = tables.window_columns(comparison.first)
    windows = tables.averages(tables.scores(comparison, "seen", columns))
    yield from _score_section(part, "seen_windows", "Clinical windows, mean of clients", windows)
    yield from _phantom_section(part, "edge", "edges", "Edges, mean of clients", "seen")
    yield from _phantom_section(part, "discs", "discs", "Faint discs, mean of clients", "seen")
    yield from _pairing_section(part, "seen")
    yield from _against_sections(part, "seen")
    yield from _ablation_section(part)
    yield from _boxes(part)
    if not part.name:  # else all networks are in one picture
        yield from _panels(part, "test", "Slices of each client")


def unseen(part: Section) -> Iterable[str]:
    """Yield the unseen protocols, served as in the paper and under every policy."""
    comparison = part.comparison
    yield part.heading("Unseen protocols")
    policies = {served.policy for served in comparison.served()}
    for policy, (name, meaning) in POLICIES.items():
        if policy in policies:
            yield f"- {name or 'no suffix'}: {meaning}."
    whole = tables.scores(comparison, "unseen", WHOLE)
    yield f"\n{shown(whole).caption}\n"
    if words := bound_words(whole):
        yield f"{words}\n"
    yield from _paper_note(comparison, unseen=True)
    for scope, name, heading in _UNSEEN:
        table = tables.scores(comparison, scope, WHOLE)
        yield from _score_section(part, name, heading, table, lead(comparison, scope))
    body = tables.scores(comparison, "unseen", BODY)
    yield from _score_section(part, "unseen_body", "Body pixels alone", body)
    yield from _many_section(part, "unseen_gains", whole, comparison.first.unseen)
    columns = tables.window_columns(comparison.first)
    windows = tables.averages(tables.scores(comparison, "unseen", columns))
    heading = "Clinical windows, mean of protocols"
    yield from _score_section(part, "unseen_windows", heading, windows)
    heading = "Faint discs, mean of protocols"
    yield from _phantom_section(part, "discs", "unseen_discs", heading, "unseen")
    yield from _pairing_section(part, "unseen")
    yield from _against_sections(part, "unseen")
    yield from _routes(part)
    if not part.name:
        yield from _panels(part, "unseen", "Slices of unseen protocols")


def _score_section(
    part: Section, name: str, heading: str, table: ScoreTable, note: str = ""
) -> Iterable[str]:
    """Yield a table, and links to all of its numbers and to the same for LaTeX."""
    every = part.write(f"{name}.csv", table.to_csv())
    page = shown(table)
    caption = " ".join(filter(None, [f"{heading}. {page.caption}", note]))
    latex = part.write(f"{name}.tex", replace(page, caption=caption).to_latex())
    yield f"### {heading}\n"
    yield page.to_markdown()
    if note:
        yield f"{note}\n"
    yield f"Every number with its spread: {every}; for LaTeX: {latex}.\n"


def _phantom_section(
    part: Section, kind: str, name: str, heading: str, scope: Scope
) -> Iterable[str]:
    """Yield what was measured on a kind of phantom, where it was."""
    table = tables.phantoms(part.comparison, kind, scope)
    if table is not None:
        yield from _score_section(part, name, heading, tables.averages(table))
        yield f"{table.caption[0].upper()}{table.caption[1:]}.\n"


def _paper_note(comparison: Comparison, *, unseen: bool) -> Iterable[str]:
    """Yield what the numbers in brackets are, where they were asked for."""
    if not comparison.paper:
        return
    backbone = comparison.groups[0].backbone
    table = tables.table_of_the_paper(backbone, unseen=unseen)
    if table is None:
        yield f"{CITATION} has no such table for {backbone_title(backbone)}.\n"
        return
    yield (
        f"In brackets: the number that {CITATION} prints in its table {table}. It comes from other "
        "patients and sizes, and from an intensity window that is not named: compare orders and "
        "differences, not levels."
    )
    if unseen:
        yield (
            "Its four unseen protocols are not public, and those here are others: only averages "
            "stand beside each other. The table does not name its backbone."
        )
    titles = {group.method: group.runs[0].title for group in comparison.groups}
    odd = [
        f"{titles[method]} {column.heading} {printed:.2f}, its clients' mean {mean:.2f}"
        for method, metric, printed, mean in paper_tables().odd_averages(table)
        for column in WHOLE
        if column.metric == metric and method in titles
    ]
    if odd:
        yield f"Averages as printed that are not those of the clients printed: {'; '.join(odd)}."
    yield ""


def _many_section(
    part: Section, name: str, table: ScoreTable, entries: Sequence[ClientEntry]
) -> Iterable[str]:
    """Yield the best and worst of many clients, and a figure of them all."""
    if len(entries) <= CLIENTS_SHOWN or (grid := extremes(table, entries)) is None:
        return
    yield "### Best and worst\n"
    yield (
        f"The {EXTREMES} protocols that gain most PSNR over their own input with "
        f"{leader(table).label}, and the {EXTREMES} that gain least.\n"
    )
    yield from plain_table(part, name, grid)
    figure = gain_figure(table, entries, [GainPanel(r.label, r) for r in table.rows[1:]])
    yield part.picture(name, figure, "PSNR over that of the input, one dot a protocol")


def plain_table(part: Section, name: str, grid: Grid) -> Iterable[str]:
    """Yield a grid, and a link to all of its rows where the page does not show them."""
    yield facts.markdown(grid.head, grid.rows)
    if grid.complete:
        yield f"All {len(grid.complete)} rows: {part.write(f'{name}.csv', grid.to_csv())}.\n"


def _pairing_section(part: Section, scope: Scope) -> Iterable[str]:
    """Yield how sure the lead of the best method is, by PSNR and by SSIM."""
    for column in WHOLE:
        found = pairings(part.comparison, column, scope)
        if found is None:
            return
        best, rows = found
        yield f"### {best} against the others in {column.heading}\n"
        if column is WHOLE[0]:
            yield (
                "Differences on the whole image, paired by seed and client, the second best "
                "first, with Wilcoxon's signed-rank test. Clients of one run share parameters and "
                "test patients, so that the pairs are not independent, and p is not corrected for "
                "the number of methods: read it as a guide.\n"
            )
        head = ("Against", f"difference ({column.difference_unit})", "pairs won", "p")
        yield from plain_table(part, f"{scope}_pairs_{column.metric}", first_rows(head, rows))


def _against_sections(part: Section, scope: Scope) -> Iterable[str]:
    """Yield the differences of all methods from each that was asked for."""
    columns = every_column(part.comparison.first)
    for number, (name, base) in enumerate(part.baselines.items(), 1):
        grid = against(part.comparison, base, scope, columns)
        if grid is None:
            continue
        where = ", unseen protocols" if scope == "unseen" else ""
        yield f"### Differences from {name}, slice by slice{where}\n"
        yield facts.markdown(grid.head, grid.rows)
        yield (
            "Mean over clients, each the mean over its slices, ± the standard deviation over "
            "seeds; in brackets the share of all slices on which the number is higher. Slices of "
            "one patient are alike: few patients are few, however many slices they have. For other "
            f"programs: {part.write(f'{scope}_against_{number}.csv', grid.to_csv())}.\n"
        )


def _ablation_section(part: Section) -> Iterable[str]:
    comparison = part.comparison
    table = ablation(comparison.groups, paper=comparison.paper)
    if table is None:
        return
    yield "### Parts of SCAN-PhysFed\n"
    if comparison.paper:
        yield f"In brackets: {CITATION}, table {TABLE_ABLATION}.\n"
    yield table.to_markdown()
    every = part.write("ablation.csv", table.scores.to_csv())
    yield f"With spreads: {every}; for LaTeX: {part.write('ablation.tex', table.to_latex())}.\n"


def _boxes(part: Section) -> Iterable[str]:
    scores = slice_scores(part.comparison)
    if all(scores.values()):
        yield "### Spread over slices\n"
        yield (
            "Test slices of all clients and seeds; a box holds the middle half of them, its line "
            "the median, and its whiskers the rest up to 1.5 box lengths.\n"
        )
        figure = method_boxes(scores, _styles(part.comparison))
        yield part.picture("boxes", figure, "PSNR and SSIM of all test slices, one box a method")


def _styles(comparison: Comparison) -> dict[str, MethodStyle]:
    return method_styles({group.label: group.kind for group in comparison.groups})


def _panels(part: Section, split: str, heading: str) -> Iterable[str]:
    """Yield one picture a client: every method on the same slice."""
    pictures = list(compare_panels(part.comparison, split))
    if not pictures:
        return
    yield f"### {heading}\n"
    yield (
        "The slice, the framed part of it (chosen by the detail of the full dose alone), and the "
        "image minus the full dose. PSNR is that in the window shown; slices with lungs are shown "
        "from -1024 to 200 HU, others from -160 to 240 HU, the paper's windows.\n"
    )
    for entry, figure in pictures:
        alt = f"A slice of {entry.label}, full dose, low dose and denoised"
        yield part.picture(f"slices_{entry.id}", figure, alt)


def _routes(part: Section) -> Iterable[str]:
    """Yield where PVQS sent each unseen protocol, seed by seed."""
    rows = []
    for group in part.comparison.groups:
        for entry_index, entry in enumerate(part.comparison.first.unseen):
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
        yield from plain_table(part, "routes", first_rows(head, rows))


def training(part: Section) -> Iterable[str]:
    """Yield scores against rounds, bytes and time, the state of the modulation, and costs."""
    comparison = part.comparison
    yield part.heading("Training")
    split = curve_split(comparison.first)
    found = courses(comparison, split)
    if found:
        figure = training_courses(found, _styles(comparison), split)
        alt = f"PSNR and SSIM on {split} patients against rounds, bytes sent and training time"
        yield part.picture("curves", figure, alt)
        yield f"The numbers behind it: {part.write('curves.csv', courses_csv(found))}.\n"
    yield "### State of the modulation at the end\n"
    yield (
        "Mean over clients and seeds, and the range. A modulation with spreads near 0 and a "
        "`swap_psnr_drop` near 0 dB (what a client loses with the code least like its own) does "
        "nothing.\n"
    )
    yield facts.modulation(comparison) or "None of these methods has one.\n"
    yield "### Cost\n"
    yield "Times are medians, over seeds and over rounds.\n"
    yield facts.costs(comparison)

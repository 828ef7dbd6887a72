"""The score tables of one run: its own clients, and the unseen protocols under every policy."""

from collections.abc import Sequence

import numpy as np

from physfed_ray.metrics.sharpness import CONTRASTS_HU, LEVELS, mtf_name
from physfed_ray.results.runs import POLICIES, ClientEntry, RunResults
from physfed_ray.results.summaries import shown
from physfed_ray.results.tables import CLIENTS_SHOWN, Column, ScoreTable, TableRow

WHOLE = (Column("psnr", "PSNR"), Column("ssim", "SSIM", 100.0))
UNITS = "PSNR in dB, SSIM in %"
BODY = (Column("psnr_body", "PSNR"), Column("ssim_body", "SSIM", 100.0))
OPTIONAL = (
    Column("fsim", "FSIM", 100.0),
    Column("nps_area_hu2", "NPS area (HU²)", decimals=1, higher_is_better=False),
    Column("nps_mean_per_mm", "NPS mean (1/mm)", decimals=3, compared=False),
    Column("nps_peak_per_mm", "NPS peak (1/mm)", decimals=3, compared=False),
)
OPTIONAL_UNITS = (
    "FSIM in %, in the window given where there is one; NPS: the noise power spectrum of the error "
    "inside the body, its area and its mean and strongest frequency"
)
EDGES = tuple(
    Column(mtf_name(level, contrast), f"{level}% at {contrast} HU", decimals=3)
    for contrast in CONTRASTS_HU
    for level in LEVELS
)
EDGE_UNITS = (
    "frequency per mm at which an edge of the given contrast has lost its modulation down to 50% "
    "or 10%, phantoms scanned under the clients' protocols"
)


def row_of(
    label: str,
    runs: Sequence[RunResults],
    split: str,
    clients: Sequence[str],
    columns: Sequence[Column],
    *,
    ranked: bool = True,
) -> TableRow:
    """Collect a row from runs that differ in their seed alone.

    Args:
        label: The row's name.
        runs: One run a seed.
        split: Such as "test" or "unseen/pvqs".
        clients: Client ids in the table's order.
        columns: The metrics.
        ranked: Whether it competes.
    """
    values = np.full((len(runs), len(clients), len(columns)), np.nan)
    for s, run in enumerate(runs):
        for m, column in enumerate(columns):
            means = run.client_means(split, column.metric)
            values[s, :, m] = [means.get(client, np.nan) for client in clients]
    return TableRow(label, values, ranked, tuple(run.seed for run in runs))


def policy_label(title: str, policy: str) -> str:
    """Name a method served by a policy."""
    suffix = POLICIES[policy][0]
    return f"{title}, {suffix}" if suffix else title


def optional_columns(run: RunResults) -> tuple[Column, ...]:
    """Return the columns of the optional metrics that a run was asked for."""
    names = {str(name) for name in run.slices.distinct("metric")}
    windows = [name for name in sorted(names) if name.startswith("fsim[")]
    found = [column for column in OPTIONAL if column.metric in names]
    return (*found, *(Column(name, f"FSIM {name[len('fsim') :]}", 100.0) for name in windows))


def edge_table(run: RunResults) -> ScoreTable | None:
    """Return the sharpness of edges after each client's own model, None where not measured."""
    clients = [c.id for c in run.clients]
    columns = tuple(c for c in EDGES if run.client_means("edge", c.metric))
    if not columns:
        return None
    rows = (
        row_of("Input", [run], "edge/input", clients, columns),
        row_of(run.title, [run], "edge", clients, columns),
    )
    caption = f"Clients seen in training ({EDGE_UNITS}){client_key(run.clients, ': ')}."
    return ScoreTable(caption, headings(run.clients, "Client"), columns, rows)


def seen_table(
    run: RunResults, columns: Sequence[Column] = WHOLE, units: str = UNITS
) -> ScoreTable:
    """Return the table of a run's own clients on the test patients."""
    clients = [c.id for c in run.clients]
    split = "test" if run.client_means("test", columns[0].metric) else "validation"
    rows = [
        row_of("Input", [run], f"{split}/input", clients, columns),
        row_of(run.title, [run], split, clients, columns),
    ]
    caption = (
        f"Clients seen in training, {split} patients ({units}){client_key(run.clients, ': ')}."
    )
    return ScoreTable(caption, headings(run.clients, "Client"), tuple(columns), tuple(rows))


def unseen_table(
    run: RunResults, columns: Sequence[Column] = WHOLE, units: str = UNITS
) -> ScoreTable | None:
    """Return the table of the unseen protocols under every policy, None without any."""
    if not run.policies:
        return None
    clients = [c.id for c in run.unseen]
    rows = [row_of("Input", [run], "unseen/input", clients, columns)]
    for policy in run.policies:
        label = policy_label(run.title, policy)
        ranked = policy != "oracle"
        rows.append(row_of(label, [run], f"unseen/{policy}", clients, columns, ranked=ranked))
    caption = f"Unseen protocols, test patients ({units}){client_key(run.unseen, ': ')}."
    return ScoreTable(caption, headings(run.unseen, "Unseen"), tuple(columns), tuple(rows))


def headings(entries: Sequence[ClientEntry], word: str) -> tuple[str, ...]:
    """Number the clients as the paper's tables do; call them by their names where they are many."""
    if len(entries) > CLIENTS_SHOWN:
        return tuple(entry.label for entry in entries)
    return tuple(f"{word} #{k + 1}" for k in range(len(entries)))


def client_key(entries: Sequence[ClientEntry], joint: str) -> str:
    """Say, after ``joint``, which client each number of ``headings`` stands for."""
    if len(entries) > CLIENTS_SHOWN:
        return ""
    return joint + ", ".join(f"#{k + 1} is {entry.label}" for k, entry in enumerate(entries))


def write_tables(run: RunResults) -> dict[str, ScoreTable]:
    """Write ``tables/seen``, ``tables/unseen`` and so on as .md, .csv and .tex; return them.

    The .csv files hold every client; .md and .tex a summary where there are many.
    """
    found = {
        "seen": seen_table(run),
        "seen_body": seen_table(run, BODY),
        "unseen": unseen_table(run),
        "unseen_body": unseen_table(run, BODY),
        "seen_edges": edge_table(run),
    }
    if columns := optional_columns(run):
        found["seen_optional"] = seen_table(run, columns, OPTIONAL_UNITS)
        found["unseen_optional"] = unseen_table(run, columns, OPTIONAL_UNITS)
    tables = {name: table for name, table in found.items() if table is not None}
    for name, table in tables.items():
        page = shown(table)
        markdown = f"{page.caption}\n\n{page.to_markdown()}"
        run.directory.write(f"tables/{name}.md", markdown.encode())
        run.directory.write(f"tables/{name}.csv", table.to_csv().encode())
        run.directory.write(f"tables/{name}.tex", page.to_latex().encode())
    return tables

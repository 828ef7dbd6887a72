"""The score tables of one run: its own clients, and the unseen protocols under every policy."""

from collections.abc import Sequence

import numpy as np

from physfed_ray.evaluation.runs import POLICIES, ClientEntry, Run
from physfed_ray.evaluation.summaries import shown
from physfed_ray.evaluation.tables import CLIENTS_SHOWN, Column, Row, ScoreTable

WHOLE = (Column("psnr", "PSNR"), Column("ssim", "SSIM", 100.0))
UNITS = "PSNR in dB, SSIM in %"
BODY = (Column("psnr_body", "PSNR"), Column("ssim_body", "SSIM", 100.0))


def row_of(
    label: str,
    runs: Sequence[Run],
    split: str,
    clients: Sequence[str],
    columns: Sequence[Column],
    *,
    ranked: bool = True,
) -> Row:
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
    return Row(label, values, ranked, tuple(run.seed for run in runs))


def policy_label(title: str, policy: str) -> str:
    """Name a method served by a policy."""
    suffix = POLICIES[policy][0]
    return f"{title}, {suffix}" if suffix else title


def seen_table(run: Run, columns: Sequence[Column] = WHOLE) -> ScoreTable:
    """Return the table of a run's own clients on the test patients."""
    clients = [c.id for c in run.clients]
    split = "test" if run.client_means("test", columns[0].metric) else "validation"
    rows = [
        row_of("Input", [run], f"{split}/input", clients, columns),
        row_of(run.title, [run], split, clients, columns),
    ]
    caption = (
        f"Clients seen in training, {split} patients ({UNITS}){client_key(run.clients, ': ')}."
    )
    return ScoreTable(caption, headings(run.clients, "Client"), tuple(columns), tuple(rows))


def unseen_table(run: Run, columns: Sequence[Column] = WHOLE) -> ScoreTable | None:
    """Return the table of the unseen protocols under every policy, None without any."""
    if not run.policies:
        return None
    clients = [c.id for c in run.unseen]
    rows = [row_of("Input", [run], "unseen/input", clients, columns)]
    for policy in run.policies:
        label = policy_label(run.title, policy)
        ranked = policy != "oracle"
        rows.append(row_of(label, [run], f"unseen/{policy}", clients, columns, ranked=ranked))
    caption = f"Unseen protocols, test patients ({UNITS}){client_key(run.unseen, ': ')}."
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


def write_tables(run: Run) -> dict[str, ScoreTable]:
    """Write ``tables/seen`` and ``tables/unseen`` as .md, .csv and .tex; return them by name.

    The .csv files hold every client; .md and .tex a summary where there are many.
    """
    tables = {"seen": seen_table(run), "seen_body": seen_table(run, BODY)}
    for name, columns in (("unseen", WHOLE), ("unseen_body", BODY)):
        if (table := unseen_table(run, columns)) is not None:
            tables[name] = table
    for name, table in tables.items():
        page = shown(table)
        markdown = f"{page.caption}\n\n{page.to_markdown()}"
        run.directory.write(f"tables/{name}.md", markdown.encode())
        run.directory.write(f"tables/{name}.csv", table.to_csv().encode())
        run.directory.write(f"tables/{name}.tex", page.to_latex().encode())
    return tables

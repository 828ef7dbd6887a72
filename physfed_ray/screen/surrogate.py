"""A surrogate study as a user sees it: a line for each thing that was measured, then the table."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from physfed_ray.events import Event
from physfed_ray.surrogates.file import SurrogateFile
from physfed_ray.surrogates.rows import Rows
from physfed_ray.surrogates.tables import headings, table_rows


def show(event: Event) -> None:
    """Print an event of ``run_study``."""
    cell, counts = event["cell"], f"{event['done']} of {event['total']} done"
    if cell is None:
        line = counts
    else:
        what = "the patients' own images" if cell.beta is None else f"beta {cell.beta:g}"
        line = f"seed {cell.seed}, {what}: {cell.task} ({counts})"
    Console(highlight=False).print(Text(line), soft_wrap=True)


def print_result(
    file: SurrogateFile, rows: Rows, page: Path, console: Console | None = None
) -> None:
    """Print the measures over beta, and where the page lies."""
    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings(file)):
        table.add_column(heading, justify="right" if number else "left")
    for row in table_rows(file, rows):
        table.add_row(*row)
    console.print(table)
    console.print(Text(f"means ± standard deviations over seeds: {len(file.seeds)}"))
    console.print(Text(str(page)), soft_wrap=True)

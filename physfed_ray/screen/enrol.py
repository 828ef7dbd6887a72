"""What the command line prints of an enrolled client: what it gains, per added patient."""

from collections.abc import Mapping

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from physfed_ray.serving.enrol.card import EnrolledCard, Result

COLUMNS = {"psnr": ("PSNR", 1.0, 2), "ssim": ("SSIM", 100.0, 2),
           "psnr_body": ("body", 1.0, 2), "ssim_body": ("body SSIM", 100.0, 2)}  # fmt: skip
"""Metrics of the table: heading, factor, decimals. PSNR in dB, SSIM in %."""
STARTS = {
    "initial": "its initial weights",
    "nearest": "the private part of the client that served it before",
    "shared": "a copy of the shared one",
}


def print_enrolled(card: EnrolledCard, where: str, console: Console | None = None) -> None:
    """Print a client's gain over being served unseen, and where its files lie."""
    console = console or Console()
    counts = ", ".join(f"{len(names)} {split}" for split, names in card.patients.items())
    console.print(Text(f"{card.id}: {card.protocol}; patients: {counts}"), soft_wrap=True)
    trained = ", ".join(card.trained)
    console.print(
        Text(f"trained: {trained}, from {STARTS[card.start]}; nothing leaves the client"),
        soft_wrap=True,
    )
    unseen = _unseen(card)
    for result in card.results:
        if result.split.startswith("unseen/"):
            console.print(Text(f"{result.split}: {result.says}"), soft_wrap=True)
    console.print(_table(card, unseen))
    console.print(
        Text("means over test patients ± their spread; PSNR in dB, SSIM in %; body: within the "
             "patient; gain: PSNR over the first unseen row, patient by patient, least to most"),
        soft_wrap=True, style="italic",
    )  # fmt: skip
    console.print(Text(f"files: {where}"), soft_wrap=True)


def _unseen(card: EnrolledCard) -> Result:
    return next(result for result in card.results if result.split.startswith("unseen/"))


def _table(card: EnrolledCard, unseen: Result) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("")
    for title in ("patients", "round", *(heading for heading, _, _ in COLUMNS.values()), "gain"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in card.results:
        learnt = result.split.startswith("enrolled/")
        name = "enrolled" if learnt else result.split
        numbers = [str(result.patients), f"{result.round}/{result.rounds}"] if learnt else ["", ""]
        cells = [spread(result.scores[metric], *how[1:]) for metric, how in COLUMNS.items()]
        table.add_row(name, *numbers, *cells, gain(result, unseen) if learnt else "")
    return table


def spread(values: Mapping[str, float], factor: float = 1.0, decimals: int = 2) -> str:
    """Return the mean over patients and, of several, its standard deviation (n - 1)."""
    numbers = factor * np.array(list(values.values()))
    mean = f"{numbers.mean():.{decimals}f}"
    return mean if len(numbers) < 2 else f"{mean} ±{numbers.std(ddof=1):.{decimals}f}"


def gain(result: Result, unseen: Result) -> str:
    """Return the mean gain in PSNR over the unseen service, and its range over patients, dB."""
    pairs = result.scores["psnr"], unseen.scores["psnr"]
    gains = np.array([pairs[0][patient] - pairs[1][patient] for patient in pairs[0]])
    mean = f"{gains.mean():+.2f}"
    return mean if len(gains) < 2 else f"{mean} ({gains.min():+.2f} to {gains.max():+.2f})"

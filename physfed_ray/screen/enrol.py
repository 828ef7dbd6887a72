"""What the command line prints of an enrolled client: what it gains, per added patient."""

from collections.abc import Iterator, Mapping

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
    for line in _before(card):
        console.print(Text(line), soft_wrap=True)
    console.print(_table(card))
    for line in _after(card, where):
        console.print(Text(line), soft_wrap=True)


def _before(card: EnrolledCard) -> Iterator[str]:
    numbers = ", ".join(f"{name} {value}" for name, value in card.protocol.values().items())
    yield f"{card.id}: {numbers}"
    yield "patients: " + ", ".join(
        f"{len(names)} {split}" for split, names in card.patients.items()
    )
    yield f"trained: {', '.join(card.trained)}, from {STARTS[card.start]}"
    for result in card.results:
        if result.split.startswith("unseen/"):
            yield f"{_short(result)}: {result.says}"


def _after(card: EnrolledCard, where: str) -> Iterator[str]:
    unseen = next(result for result in card.results if result.split.startswith("unseen/"))
    for result in card.results:
        if result.split.startswith("enrolled/"):
            yield f"gain {result.says.removeprefix('enrolled ')}: {gain(result, unseen)}"
    yield f"gain: in PSNR over {_short(unseen)}; n: training patients; round: chosen/made"
    yield "± over test patients; PSNR in dB, SSIM in %; body: within the patient"
    yield f"files: {where}"


def _short(result: Result) -> str:
    return result.split.removesuffix("_protocol")


def _table(card: EnrolledCard) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for title in ("n", "round", *(heading for heading, _, _ in COLUMNS.values())):
        table.add_column(title, justify="right", no_wrap=True)
    for result in card.results:
        learnt = result.split.startswith("enrolled/")
        name = "enrolled" if learnt else _short(result)
        numbers = [str(result.patients), f"{result.round}/{result.rounds}"] if learnt else ["", ""]
        cells = [spread(result.scores[metric], *how[1:]) for metric, how in COLUMNS.items()]
        table.add_row(name, *numbers, *cells)
    return table


def spread(values: Mapping[str, float], factor: float = 1.0, decimals: int = 2) -> str:
    """Return the mean over patients and, of several, its standard deviation (n - 1)."""
    numbers = factor * np.array(list(values.values()))
    mean = f"{numbers.mean():.{decimals}f}"
    return mean if len(numbers) < 2 else f"{mean} ±{numbers.std(ddof=1):.{decimals}f}"


def gain(result: Result, unseen: Result) -> str:
    """Return the mean gain in PSNR over the unseen service, its range, and how many gain."""
    own, other = result.scores["psnr"], unseen.scores["psnr"]
    gains = np.array([own[patient] - other[patient] for patient in own])
    mean = f"{gains.mean():+.2f} dB"
    if len(gains) < 2:
        return mean
    better = f"{(gains > 0).sum()} of {len(gains)} test patients gain"
    return f"{mean} ({gains.min():+.2f} to {gains.max():+.2f}), {better}"

"""What a surrogate study leaves to read: ``surrogate.html``, its figures and its table."""

import base64
import csv
import io
from pathlib import Path

import numpy as np

from physfed_ray.atomic import atomic_file
from physfed_ray.data.pseudonyms import pseudonymous_command
from physfed_ray.pages import render
from physfed_ray.pages.figures import png
from physfed_ray.surrogates import figures as draw
from physfed_ray.surrogates.file import SurrogateFile
from physfed_ray.surrogates.rows import ATTACK, Rows
from physfed_ray.surrogates.run import EXAMPLES
from physfed_ray.surrogates.tables import (
    INVERSIONS,
    betas_of,
    control_rows,
    headings,
    inversion_rows,
    mean_and_spread,
    table_rows,
    words,
)

PAGE = "surrogate.html"


def write_page(file: SurrogateFile, rows: Rows, command: str = "") -> Path:
    """Write the page, its figures and its table, and return the page.

    Args:
        file: The study.
        rows: What was measured.
        command: The command line, for the record.
    """
    out, table = rows.out, table_rows(file, rows)
    pictures = {"curves": png(draw.curves(file, rows))}
    if examples := read_examples(file, out):
        pictures["slice"] = png(draw.one_slice(examples))
    for name, content in pictures.items():
        _write(out / "figures" / f"{name}.png", content)
    _write(out / "tables" / "surrogate.csv", _csv([headings(file), *table]).encode())
    page = render(
        "surrogate.html",
        title=file.surrogate,
        file=file,
        headings=headings(file),
        rows=table,
        controls=control_rows(file, rows),
        inversions=inversion_rows(file, rows),
        verdicts=verdicts(file, rows),
        pictures={name: base64.b64encode(p).decode() for name, p in pictures.items()},
        clinical=file.data.source.dicom is not None,
        command=pseudonymous_command(command),
    )
    _write(out / PAGE, page.encode())
    return out / PAGE


def verdicts(file: SurrogateFile, rows: Rows) -> list[str]:
    """Return what the numbers say of each task and each attack, by comparison with the controls."""

    def mean(task: str, beta: float | None, measure: str) -> float:
        return mean_and_spread(rows.over_seeds(file.seeds, task, beta, measure))[0]

    found = []
    top = max(file.betas)
    for task in file.tasks:
        best = max(file.betas, key=lambda beta: mean(task, beta, "accuracy"))
        shown = words(rows.over_seeds(file.seeds, task, best, "accuracy"))
        own = words(rows.over_seeds(file.seeds, task, None, "accuracy"))
        host = words(rows.over_seeds(file.seeds, task, 0.0, "accuracy"))
        found.append(
            f"{task}: {shown}% at best on surrogates (beta {best:g}), {own}% on the patients' own "
            f"images, {host}% on hosts alone."
        )
    least = min(file.betas)
    guess = words(rows.over_seeds(file.seeds, ATTACK, 0.0, "reid_chance"))
    for measure, who in (
        ("reid", "whoever has other slices of the patients"),
        ("reid_known_hosts", "whoever also has the hosts"),
    ):
        ends = [words(rows.over_seeds(file.seeds, ATTACK, b, measure)) for b in (least, top)]
        found.append(
            f"Re-identified by {who}: {ends[0]}% at beta {least:g}, {ends[1]}% at beta {top:g}; "
            f"by chance {guess}%."
        )
    strongest = max(INVERSIONS, key=lambda name: mean(ATTACK, top, f"{name}_correlation"))
    found.append(
        f"The best inversion at beta {top:g}: {_alike(file, rows, strongest, top)}; the mean "
        f"image of the patient's region: {_alike(file, rows, 'region_mean', top)}."
    )
    return found


def _alike(file: SurrogateFile, rows: Rows, name: str, beta: float) -> str:
    """Return how much images look like the patient, in two measures that need not agree."""
    correlation, ssim = (
        rows.over_seeds(file.seeds, ATTACK, beta, f"{name}_{kind}")
        for kind in ("correlation", "ssim")
    )
    return f"correlation {words(correlation, 1, 3)}, SSIM {words(ssim)}%"


def read_examples(file: SurrogateFile, out: Path) -> dict[float, dict[str, np.ndarray]]:
    """Return the images of one slice by beta and name, of those betas that have them."""
    found = {}
    for beta in betas_of(file):
        path = out / EXAMPLES / f"beta-{beta:g}.npz"
        if path.exists():
            with np.load(path) as images:
                found[beta] = {name: images[name] for name in images.files}
    return found


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()

"""Write a run's figures, tables and ``report.html``: one file that opens offline."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from physfed_ray.pages import figures, pictures, render
from physfed_ray.pages.gain_figure import GainPanel, gain_figure
from physfed_ray.pages.run_viewer import run_viewer
from physfed_ray.pages.run_words import followed_modulation, page
from physfed_ray.results.grids import grids
from physfed_ray.results.run_tables import WHOLE, write_tables
from physfed_ray.results.runs import POLICIES, ClientEntry, RunResults, finite_mean, read_results
from physfed_ray.results.summaries import gains, leader
from physfed_ray.results.tables import CLIENTS_SHOWN, ScoreTable
from physfed_ray.window import denormalise

EXAMPLES = 8
ROWS = 4
_WIDTH_PX = 1144
_BAND = "The thick line is the mean of the clients, the band holds the middle half of them"


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure inside the page: its anchor and sentence, its PNG in base64, its width in pixels."""

    id: str
    title: str
    sentence: str
    base64: str
    width: int


@figures.sparing_garbage()
def write_run_page(run_dir: str | Path) -> Path:
    """Write ``tables/``, ``figures/`` and ``report.html`` of a finished or interrupted run.

    Args:
        run_dir: The run directory, a local path or an fsspec URL.

    Returns:
        Where the page lies.

    Raises:
        PhysFedError: There is no run, or no round of it was completed.
    """
    run = read_results(run_dir)
    tables, plain = write_tables(run), grids(run)
    for name, grid in plain.items():
        if grid.complete:
            run.directory.write(f"tables/{name}.csv", grid.to_csv().encode())
    embedded = {}
    for name, (title, sentence, figure) in _figures(run, tables).items():
        content = figures.png(figure)
        run.directory.write(f"figures/{name}.png", content)
        width = min(_WIDTH_PX, round(figure.get_size_inches()[0] * 106.4))
        coded = base64.b64encode(content).decode()
        embedded[name] = EmbeddedFigure(f"figure-{name}", title, sentence, coded, width)
    words = page(run, tables, plain)
    viewer = run_viewer(run, shown_policy(run, "unseen"))
    html = render("report.html", page=words, figures=embedded, viewer=viewer)
    run.directory.write("report.html", html.encode())
    return Path(run.directory.path("report.html"))


def _figures(
    run: RunResults, tables: Mapping[str, ScoreTable]
) -> dict[str, tuple[str, str, Figure]]:
    """Draw every figure that the run has data for: name -> title, sentence, figure."""
    made = {
        "learning_curves": _learning_curves(run),
        "boxplots": _boxplots(run),
        "gains_seen": _gains(tables.get("seen"), run.clients),
        "gains_unseen": _gains(tables.get("unseen"), run.unseen),
        "codebook": _codebook(run),
        "modulation": _modulation(run),
        "costs": _costs(run),
        "samples": _samples(run),
    }
    for split in ("test", "unseen"):
        for k, entry in enumerate(_examples(run, split)):
            made[f"examples_{split}_{k + 1}"] = entry
    return {name: entry for name, entry in made.items() if entry is not None}


def curve_split(run: RunResults) -> str:
    """Return the split whose scores were followed during training."""
    counts = {
        split: sum(len(rounds) for rounds, _ in run.curve(split, "psnr").values())
        for split in ("validation", "test")
    }
    return max(counts, key=lambda split: counts[split])


def _learning_curves(run: RunResults) -> tuple[str, str, Figure] | None:
    loss = run.curve("train", "loss")
    loss.pop("server", None)  # of other images, and none of the clients
    if not loss:
        return None
    split = curve_split(run)
    score = run.curve(split, "psnr")
    before = finite_mean(run.client_means(f"{split}/input", "psnr").values())
    figure = figures.learning_curves(loss, score, split, before)
    many = len(run.clients) > CLIENTS_SHOWN
    lines = _BAND if many else "Each thin line is a client, the thick line their mean"
    return (
        "Learning curves",
        f"{lines}; the PSNR is that of {split} patients, and a dashed line shows the undenoised "
        "input where it is known.",
        figure,
    )


def _boxplots(run: RunResults) -> tuple[str, str, Figure] | None:
    clients = run.clients
    if len(clients) > CLIENTS_SHOWN or not len(run.slices.where(split="test", metric="psnr")):
        return None
    groups: dict[str, dict[str, list[Any]]] = {}
    for column in WHOLE:
        groups[column.labelled] = {}
        for label, split in (("Input", "test/input"), (run.title, "test")):
            rows = run.slices.where(split=split, metric=column.metric)
            groups[column.labelled][label] = [
                column.scale * rows.where(client=c.id).values for c in clients
            ]
    figure = figures.boxplots(groups, [c.id for c in clients])
    return (
        "Spread over slices",
        "Each box holds the middle half of a client's test slices, its line the median, and its "
        "whiskers the rest up to 1.5 box lengths.",
        figure,
    )


def _gains(
    table: ScoreTable | None, entries: Sequence[ClientEntry]
) -> tuple[str, str, Figure] | None:
    """Draw the gain of many clients, where tables and boxes cannot show each of them."""
    if table is None or len(entries) <= CLIENTS_SHOWN:
        return None
    row = leader(table)
    if not np.isfinite(gains(table, row)).any():
        return None
    panels = [GainPanel(f"Coloured by {c}", row, c) for c in ("photons", "views")]
    return (
        "Gain over the input",
        f"Each dot is one protocol: the PSNR of {row.label} minus that of its own input; below "
        "the line at 0 denoising did harm.",
        gain_figure(table, entries, panels),
    )


def entries_with_examples(run: RunResults, split: str) -> list[ClientEntry]:
    """Choose who is pictured: all, or a few spread evenly over the ranks of the input's PSNR."""
    entries = run.clients if split == "test" else run.unseen
    found = [e for e in entries if run.example(split, e.id) is not None]
    if len(found) <= EXAMPLES:
        return found
    before = run.client_means(f"{split}/input", "psnr")
    found.sort(key=lambda entry: before.get(entry.id, 0.0))
    return [found[round(k * (len(found) - 1) / (EXAMPLES - 1))] for k in range(EXAMPLES)]


def _chosen(run: RunResults, split: str) -> str:
    """Say who is pictured where not all are."""
    count = len(run.clients if split == "test" else run.unseen)
    if count <= EXAMPLES:
        return ""
    return f" {EXAMPLES} of {count}, spread over the PSNR of the input."


def _examples(run: RunResults, split: str) -> list[tuple[str, str, Figure]]:
    """Draw examples, a few rows a figure, so that each fits a screen and a page."""
    panels = []
    policy = shown_policy(run, split)
    for entry in entries_with_examples(run, split):
        example = run.example(split, entry.id)
        if example is None or policy not in example.denoised:
            continue
        full, low, denoised = (
            denormalise(image, run.window_hu)
            for image in (example.full, example.low, example.denoised[policy])
        )
        panels.append(pictures.Panel(two_lines(entry), full, (low, denoised)))
    how = f" ({POLICIES[policy][0]})" if POLICIES.get(policy, ("",))[0] else ""
    low_hu, high_hu = pictures.SOFT_TISSUE_HU
    sentence = (
        f"Shown from {low_hu:g} to {high_hu:g} HU with the PSNR in that window; the errors are the "
        f"image minus the full dose, blue below it and red above, up to {pictures.ERROR_HU:g} HU."
        + _chosen(run, split)
    )
    return [
        (
            f"Denoised slices{how}" + (", continued" if start else ""),
            sentence,
            pictures.denoised_panels(panels[start : start + ROWS], ("Low dose", run.title)),
        )
        for start in range(0, len(panels), ROWS)
    ]


def shown_policy(run: RunResults, split: str) -> str:
    """Choose the policy to look at: the method's own where there are several."""
    if split == "test":
        return ""
    shown = {key.split("/")[1] for key in run.arrays if key.startswith("unseen/")}
    for policy in ("pvqs", "shared", "nearest_protocol", "ensemble"):
        if policy in shown:
            return policy
    return ""


def _samples(run: RunResults) -> tuple[str, str, Figure] | None:
    panels = []
    for entry in entries_with_examples(run, "test"):
        example = run.example("test", entry.id)
        if example is not None:
            full, low = (denormalise(x, run.window_hu) for x in (example.full, example.low))
            panels.append(pictures.Panel(two_lines(entry), full, (low,)))
    if not panels:
        return None
    window = pictures.SOFT_TISSUE_HU
    return (
        "Example slices" if len(run.clients) > CLIENTS_SHOWN else "Example slices of each client",
        "A test slice before and after the scan is simulated with each client's protocol, from "
        f"{window[0]:g} to {window[1]:g} HU." + _chosen(run, "test"),
        pictures.sample_slices(panels),
    )


def _codebook(run: RunResults) -> tuple[str, str, Figure] | None:
    if run.codebook is None:
        return None
    clients, codes = run.codebook
    return (
        "Codebook",
        "Cosine between the protocol codes of every two clients: 0 means that they share no "
        "direction, 1 that they differ at most in length.",
        figures.cosine_matrix(codes, clients),
    )


def _modulation(run: RunResults) -> tuple[str, str, Figure] | None:
    curves = {name: run.curve("modulation", name) for name in followed_modulation(run)}
    if not curves:
        return None
    return (
        "State of the modulation",
        "What the hypernetworks do to the features over the rounds; lines that stay where they "
        "began show a modulation that does nothing."
        + (f" {_BAND}." if len(run.clients) > CLIENTS_SHOWN else ""),
        figures.modulation(curves),
    )


def _costs(run: RunResults) -> tuple[str, str, Figure] | None:
    system = {m: run.curve("system", m) for m in ("seconds", "bytes_down", "bytes_up")}
    if not all("server" in curves for curves in system.values()):
        return None
    seconds, down, up = (curves["server"] for curves in system.values())
    return (
        "Time and bytes of each round",
        f"A round took {finite_mean(seconds[1]):.2f} s on average and moved "
        f"{finite_mean(down[1]) / 1e6:.1f} MB to the clients and {finite_mean(up[1]) / 1e6:.1f} MB "
        "to the server.",
        figures.costs(seconds, down, up),
    )


def two_lines(entry: ClientEntry) -> str:
    """Return a client's id above the name of its protocol, for the margin of a picture."""
    preset = entry.preset
    return entry.id if preset in (None, entry.id) else f"{entry.id}\n{preset}"

"""Figures of a run and of a comparison: curves, boxes, the codebook and the costs.

Every function returns a matplotlib figure with labelled axes; ``png`` turns it into bytes. Colours
are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import gc
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from physfed_ray.pages.layout import LETTER_INCHES, place_panels, place_square, turned_inches
from physfed_ray.results.runs import Curves, by_round, mean_curve
from physfed_ray.results.tables import CLIENTS_SHOWN

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GREY = "#8a8a8a"
STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # else every title looks for ticks above it, which nothing here has
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}
P = ParamSpec("P")
Curve = tuple[Sequence[int], Sequence[float]]
_MB = 1e6
_FEW_TICKS = 6  # of a small panel: to make them takes most of its time
_COMPRESSION = 2  # of PNG: a third of the time of the default, and files a tenth larger
_UPRIGHT, _TURN_DEGREES = 8, 30  # clients whose names fit side by side; the turn of more names
_KEY_INCHES = 0.55  # what a legend needs beside its words


def new_figure(width: float, height: float, *, placed: bool = False) -> Figure:
    """Return an empty figure in inches, drawn without a display.

    Args:
        width: Inches.
        height: Inches.
        placed: Whether the caller gives its axes their places; else matplotlib finds them, which
            takes longer than all else.
    """
    figure = Figure(
        figsize=(width, height), layout=None if placed else "constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def sparing_garbage() -> Iterator[None]:
    """Let the garbage collector pass over all that is there already.

    Figures make many small objects, so the collector runs often. Going through all imported modules
    each time took a fifth of a page.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the project's style without changing matplotlib's settings for anybody else."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


def png(figure: Figure, *, dpi: int = 150, limit: int | None = None) -> bytes:
    """Return a figure as PNG.

    Args:
        figure: The figure.
        dpi: Pixels per inch.
        limit: Largest size in bytes; colours, then resolution are reduced until it is met. The
            colours that stay are 64 greys, 64 of the error scale, and those of the lines.
    """
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)  # its methods carry no types
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    content = io.BytesIO()
    picture.save(content, format="png", compress_level=_COMPRESSION, dpi=(dpi, dpi))
    if limit is None or len(content.getvalue()) <= limit:
        return content.getvalue()
    small = io.BytesIO()
    _reduced(picture).save(small, format="png", optimize=True)
    if len(small.getvalue()) <= limit or dpi <= 50:
        return small.getvalue()
    fitting = math.sqrt(limit / len(small.getvalue()))
    return png(figure, dpi=int(dpi * min(0.92, fitting)), limit=limit)


def _reduced(image: Image.Image) -> Image.Image:
    """Draw an image with a fixed palette: greys stay grey, white white, and errors keep their hue.

    Pillow's own mapping to a given palette is approximate, and turns white into light grey.
    """
    greys = np.repeat(np.linspace(0, 255, 64)[:, None], 3, axis=1)
    errors = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 64))[:, :3] * 255
    lines = np.array([to_rgb(colour) for colour in PALETTE]) * 255
    palette = np.concatenate([greys, errors, lines, 255 - (255 - lines) / 5]).round()
    pixels = np.asarray(image).astype(np.int32)
    packed = pixels @ np.array([1 << 16, 1 << 8, 1])
    found, where = np.unique(packed, return_inverse=True)
    colours = np.stack([found >> 16, (found >> 8) & 255, found & 255], axis=1)
    squares = (palette**2).sum(axis=1) - 2 * colours @ palette.T
    nearest = squares.argmin(axis=1).astype(np.uint8)
    reduced = Image.fromarray(nearest[where].reshape(packed.shape), mode="P")
    reduced.putpalette(palette.astype(np.uint8).ravel().tolist())
    return reduced


@styled
def learning_curves(loss: Curves, score: Curves, split: str, input_db: float | None) -> Figure:
    """Draw the training loss and the PSNR over rounds: clients thin or as a band, their mean thick.

    Args:
        loss: Rounds and losses by client.
        score: Rounds and PSNR in dB by client.
        split: Whose PSNR it is, such as "validation".
        input_db: Mean PSNR of the undenoised input, None where it is not known.
    """
    figure = new_figure(10.75, 3.6, placed=True)
    left, right = figure.subplots(1, 2)
    _bundle(left, loss)
    left.set_yscale("log")
    left.set(xlabel="round", ylabel="training loss", title="Training loss")
    _bundle(right, score)
    if input_db is not None and math.isfinite(input_db):
        right.axhline(input_db, color=PALETTE[1], linestyle="--", linewidth=1.5, label="input")
    right.set(xlabel="round", ylabel="PSNR (dB)", title=f"PSNR on {split} patients")
    right.legend(loc="lower right")
    place_panels(figure, [[left, right]])
    return figure


def _bundle(ax: Axes, curves: Curves) -> None:
    if len(curves) > CLIENTS_SHOWN:
        numbers, found = by_round(curves)
        low, high = np.array([np.quantile(values, (0.25, 0.75)) for values in found]).T
        name = "middle half of clients"
        ax.fill_between(numbers, low, high, color=PALETTE[0], alpha=0.2, linewidth=0, label=name)
    for rounds, values in curves.values() if len(curves) <= CLIENTS_SHOWN else ():
        ax.plot(rounds, values, color=GREY, linewidth=0.8, alpha=0.6, zorder=2)
    mean = mean_curve(curves)
    marker = "o" if len(mean[0]) < 3 else None
    ax.plot(
        *mean, color=PALETTE[0], linewidth=2.4, label="mean of clients", zorder=3, marker=marker
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


@styled
def boxplots(
    groups: Mapping[str, Mapping[str, Sequence[NDArray[np.float64]]]], clients: Sequence[str]
) -> Figure:
    """Draw the spread over slices, per client: one panel a metric, one colour a method.

    Args:
        groups: Metric heading, then method, then one (slices,) array a client.
        clients: Labels of the clients.
    """
    figure = new_figure(10.75, 3.0 * len(groups), placed=True)
    panels = figure.subplots(len(groups), 1, squeeze=False)
    for ax, (heading, methods) in zip(panels[:, 0], groups.items(), strict=True):
        width = 0.8 / len(methods)
        for m, (label, values) in enumerate(methods.items()):
            colour = GREY if label == "Input" else PALETTE[m - 1 if m else 0]
            place = np.arange(len(clients)) + (m - (len(methods) - 1) / 2) * width
            boxes = ax.boxplot(
                [v[np.isfinite(v)] for v in values], positions=place, widths=width * 0.85,
                patch_artist=True, manage_ticks=False, medianprops={"color": "black"},
                flierprops={"marker": ".", "markersize": 3, "markeredgecolor": colour},
            )  # fmt: skip
            for box in boxes["boxes"]:
                box.set(facecolor=colour, alpha=0.75, edgecolor="#333333", label=label)
        turned = len(clients) > _UPRIGHT
        ax.set_xticks(range(len(clients)), clients, rotation=_TURN_DEGREES if turned else 0)
        ax.set(ylabel=heading, xlim=(-0.6, len(clients) - 0.4))
        ax.grid(visible=False, axis="x")
        handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        ax.legend(handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(1.0, 1.0))
    longest = max(len(label) for methods in groups.values() for label in methods)
    below = turned_inches(clients, _TURN_DEGREES) if len(clients) > _UPRIGHT else 0.0
    place_panels(figure, panels.tolist(), right=_KEY_INCHES + LETTER_INCHES * longest, below=below)
    return figure


@styled
def cosine_matrix(codes: NDArray[np.float32], labels: Sequence[str]) -> Figure:
    """Draw the cosine between every two codes of the codebook.

    Args:
        codes: (K, code_dim) float32.
        labels: One a code.
    """
    norms = np.linalg.norm(codes, axis=1, keepdims=True)
    unit = codes / np.maximum(norms, 1e-12)
    cosines = unit @ unit.T
    figure = new_figure(6.4, 5.2, placed=True)
    ax = figure.subplots()
    image = ax.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.grid(visible=False)
    few = len(labels) <= 12
    ticks = range(0, len(labels), 1 if few else math.ceil(len(labels) / 20))
    names = [labels[t] for t in ticks]
    turned = max(map(len, names)) > (4 if few else 3)
    if turned:
        ax.set_xticks(ticks, names, rotation=40, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(ticks, names)
    ax.set_yticks(ticks, names)
    for (row, column), value in np.ndenumerate(cosines) if few else ():
        shade = "white" if abs(value) > 0.6 else "black"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=8.5)
    bar = figure.add_axes((0, 0, 1, 1))
    figure.colorbar(image, cax=bar, label="cosine of protocol codes")
    place_square(figure, ax, bar, turned_inches(names, 40) if turned else 0.0)
    return figure


@styled
def costs(seconds: Curve, down: Curve, up: Curve) -> Figure:
    """Draw seconds a round, and megabytes a round in each direction."""
    figure = new_figure(10.75, 2.9, placed=True)
    left, right = figure.subplots(1, 2)
    left.bar(*seconds, color=PALETTE[0], width=0.9)
    left.set(xlabel="round", ylabel="seconds", title="Time of each round")
    for (rounds, values), label, colour, dash in (
        (down, "to the clients", PALETTE[0], "-"),
        (up, "to the server", PALETTE[1], "--"),
    ):
        right.step(
            rounds, np.asarray(values) / _MB, where="mid", color=colour, label=label,
            linestyle=dash, linewidth=2,
        )  # fmt: skip
    right.set(xlabel="round", ylabel="MB, all clients", title="Data sent in each round")
    right.set_ylim(0, 1.12 * max(*down[1], *up[1], 1.0) / _MB)
    right.legend(loc="lower right")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    place_panels(figure, [[left, right]])
    return figure


@styled
def modulation(curves: Mapping[str, Curves]) -> Figure:
    """Draw what the method reports of its modulation over rounds, one panel a quantity."""
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = new_figure(10.75, 2.5 * rows, placed=True)
    panels: list[list[Axes]] = [[] for _ in range(rows)]
    for k, (name, of_clients) in enumerate(curves.items()):
        ax = figure.add_subplot(rows, columns, k + 1)
        panels[k // columns].append(ax)
        _bundle(ax, of_clients)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=_FEW_TICKS))
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.set(xlabel="round", title=name.replace("_", " "))
    place_panels(figure, panels)
    return figure

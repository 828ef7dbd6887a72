"""The page of a pretraining: whose images it learned from, how, and how good it is."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from physfed_ray.assets.base import Table
from physfed_ray.assets.store import Asset
from physfed_ray.pages import figures, render
from physfed_ray.pages.layout import place_panels
from physfed_ray.pretraining.checkpoint import Course

POINTS = 200
"""Of a curve; what lies between two of them is averaged."""


@dataclass(frozen=True)
class AssetPage:
    """What the page tells.

    Attributes:
        asset: The asset.
        course: Its losses and scores over the steps.
        tables: Of the recipe.
        command: The command line that made it.
    """

    asset: Asset
    course: Course
    tables: Sequence[Table]
    command: str


def asset_page(page: AssetPage) -> str:
    """Return the page as HTML: one file that opens offline."""
    about, recipe = page.asset.about, page.asset.recipe()
    return render(
        "asset.html",
        name=page.asset.name,
        title=recipe.title,
        paper=recipe.paper,
        leak=about.data["leak"],
        whose=about.data["whose"],
        trained=about.data["trained"],
        held_out=about.data["held_out"],
        patients=about.data["trained"]["patients"] + about.data["held_out"]["patients"],
        scores=[(name, f"{value:.4g}") for name, value in about.scores.items()],
        span=_span(page.course),
        figure=base64.b64encode(figures.png(course_figure(page.course))).decode(),
        tables=[
            Table(t.title, t.columns, tuple(tuple(map(_cell, row)) for row in t.rows))
            for t in page.tables
        ],
        settings=list(_settings(page.asset)),
        command=page.command,
    )


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _settings(asset: Asset) -> Iterator[tuple[str, object]]:
    about = asset.about
    yield "recipe", about.recipe
    yield from ((f"asset.{key}", value) for key, value in about.settings.items())
    yield from ((f"training.{key}", value) for key, value in about.training.items())
    yield "image_size", about.image_size
    yield "window_hu", list(about.window_hu)
    if about.data["protocols"]:
        yield "protocols", ", ".join(about.data["protocols"])
    yield "scans", about.data["scans"]
    yield from about.versions.items()


def _span(course: Course) -> int:
    longest = max((len(steps) for steps, _ in course.losses.values()), default=1)
    return max(1, longest // POINTS)


@figures.styled
def course_figure(course: Course) -> Figure:
    """Draw losses and scores over steps."""
    figure = figures.new_figure(10.75, 3.6, placed=True)
    left, right = figure.subplots(1, 2)
    span = _span(course)
    for k, (name, (steps, values)) in enumerate(course.losses.items()):
        whole = len(values) // span * span
        means = np.array(values[:whole]).reshape(-1, span).mean(1)
        at = np.array(steps[:whole]).reshape(-1, span)[:, -1]
        colour = figures.PALETTE[k % len(figures.PALETTE)]
        left.plot(at, means, label=name, color=colour, linewidth=1.6)
    if all(min(values) > 0 for _, values in course.losses.values()):
        left.set_yscale("log")
    left.set(xlabel="step", ylabel="loss", title="Training losses")
    for k, name in enumerate(dict.fromkeys(n for _, scores in course.scores for n in scores)):
        found = [(step, scores[name]) for step, scores in course.scores if name in scores]
        at, values = np.array(found).T
        largest = np.abs(values).max() or 1.0
        colour = figures.PALETTE[k % len(figures.PALETTE)]
        right.plot(at, values / largest, label=name, color=colour, marker="o", linewidth=1.6)
    right.set(xlabel="step", ylabel="share of the largest", title="Scores on held-out patients")
    for ax in (left, right):
        if ax.get_legend_handles_labels()[0]:
            ax.legend(loc="best", fontsize=8.5)
    place_panels(figure, [[left, right]])
    return figure

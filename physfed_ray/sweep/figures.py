"""Figures of a sweep: history, courses, slices, parallel coordinates, importances, Pareto front."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from physfed_ray.pages.figures import GREY, PALETTE, new_figure, styled
from physfed_ray.sweep.file import Parameter
from physfed_ray.sweep.objectives import SweepObjective, find_objective

State = Literal["complete", "pruned", "failed", "running"]
COLOURS = "viridis"
SLICES_A_ROW = 3
INSIDE = 0.06
_LEGEND: Mapping[str, Literal["lower right", "upper right"]] = {
    "higher": "lower right",
    "lower": "upper right",
}


@dataclass(frozen=True)
class Tried:
    """A trial as the figures need it.

    Attributes:
        number: Its number.
        state: How it ended.
        values: Its value of each parameter that it had.
        objectives: What it gave; empty unless it is complete.
        course: First objective by rounds, over its seeds in turn.
        rounds: Completed rounds, over its seeds.
        reason: Why it was stopped or failed.
    """

    number: int
    state: State
    values: Mapping[str, Any]
    objectives: tuple[float, ...]
    course: Mapping[int, float]
    rounds: int
    reason: str = ""

    @property
    def last(self) -> float:
        """The first objective in the end, or where it was stopped; NaN where it has none."""
        if self.objectives:
            return self.objectives[0]
        return self.course[max(self.course)] if self.course else math.nan


@styled
def history(trials: Sequence[Tried], objective: str) -> Figure:
    """Draw what each trial gave, and the best so far."""
    figure = new_figure(6.4, 3.0)
    ax = figure.subplots()
    done = [t for t in trials if t.state == "complete"]
    cut = [t for t in trials if t.state == "pruned" and t.course]
    goal = find_objective(objective)
    frame = _frame(goal, [t.objectives[0] for t in done], [t.last for t in cut])
    if cut:
        ax.plot([t.number for t in cut], np.clip([t.last for t in cut], *frame), "x", color=GREY,
                clip_on=False, in_layout=False, label="pruned, where it stood")  # fmt: skip
    ax.plot([t.number for t in done], np.clip([t.last for t in done], *frame), "o",
            color=PALETTE[0], clip_on=False, in_layout=False, label="complete")  # fmt: skip
    if done:
        better = np.maximum if goal.better == "higher" else np.minimum
        best = better.accumulate([t.objectives[0] for t in done])
        numbers = [*(t.number for t in done), max(t.number for t in trials)]
        ax.step(numbers, [*best, best[-1]], where="post", color=PALETTE[1], label="best so far")
    ax.set(xlabel="trial", ylabel=goal.axis, ylim=frame)
    ax.legend(loc=_LEGEND[goal.better])
    return figure


@styled
def courses(trials: Sequence[Tried], objective: str) -> Figure:
    """Draw the first objective against rounds; pruned trials end in a cross."""
    figure = new_figure(6.4, 3.4)
    ax = figure.subplots()
    goal = find_objective(objective)
    done = [trial for trial in trials if trial.objectives]
    best = max(done, key=lambda t: goal.worth(t.objectives[0]), default=None)
    for trial in trials:
        if not trial.course:
            continue
        rounds = sorted(trial.course)
        values = [trial.course[r] for r in rounds]
        colour = PALETTE[0] if trial.state == "complete" else GREY
        top = trial is best
        ax.plot(rounds, values, color=PALETTE[1] if top else colour, lw=2.2 if top else 0.9,
                alpha=1 if top else 0.65, zorder=3 if top else 2)  # fmt: skip
        if trial.state == "pruned":
            ax.plot(rounds[-1], values[-1], "x", color=GREY, ms=5)
    kinds = [("best", PALETTE[1]), ("complete", PALETTE[0])]
    if any(trial.state == "pruned" for trial in trials):
        kinds.append(("pruned", GREY))
    for label, colour in kinds:
        ax.plot([], [], color=colour, label=label)
    frame = _frame(goal, [value for trial in trials for value in trial.course.values()], [])
    ax.set(xlabel="rounds, over the trial's seeds", ylabel=goal.axis, ylim=frame)
    ax.legend(loc=_LEGEND[goal.better])
    return figure


@styled
def slices(trials: Sequence[Tried], space: Mapping[str, Parameter], objective: str) -> Figure:
    """Draw the first objective against every parameter; later trials are darker."""
    rows = math.ceil(len(space) / SLICES_A_ROW)
    columns = min(len(space), SLICES_A_ROW)
    figure = new_figure(2.9 * columns + 0.9, 2.6 * rows)
    axes = np.asarray(figure.subplots(rows, columns, sharey=True, squeeze=False)).ravel()
    done = [t for t in trials if t.state == "complete"]
    cut = [t for t in trials if t.state == "pruned" and t.course]
    shade = Normalize(0, max((t.number for t in trials), default=1))
    goal = find_objective(objective)
    frame = _frame(goal, [t.objectives[0] for t in done], [t.last for t in cut])
    for ax, (key, parameter) in zip(axes, space.items(), strict=False):
        have = [t for t in cut if key in t.values]
        ax.plot(_places(have, key, parameter), np.clip([t.last for t in have], *frame), "x",
                color=GREY, ms=5, clip_on=False, in_layout=False)  # fmt: skip
        have = [t for t in done if key in t.values]
        ax.scatter(_places(have, key, parameter), np.clip([t.last for t in have], *frame), s=26,
                   c=[t.number for t in have], cmap="Blues", norm=shade, edgecolors=PALETTE[0],
                   linewidths=0.6, zorder=3, clip_on=False, in_layout=False)  # fmt: skip
        _scale_axis(ax, parameter)
        ax.set_xlabel(key)
    for ax in axes[len(space) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel(goal.axis)
    axes[0].set_ylim(frame)
    return figure


@styled
def parallel(trials: Sequence[Tried], space: Mapping[str, Parameter], objective: str) -> Figure:
    """Draw every trial as a line over its parameters, coloured by the first objective."""
    figure = new_figure(max(6.4, 1.45 * len(space) + 1.6), 3.6)
    ax = figure.subplots()
    goal = find_objective(objective)
    done = sorted((t for t in trials if t.objectives), key=lambda t: goal.worth(t.objectives[0]))
    found = [goal.worth(t.objectives[0]) for t in done]
    low, high = sorted(map(goal.worth, _quality_range(found))) if found else (0.0, 1.0)
    norm = Normalize(low, high)
    scale = ScalarMappable(norm, COLOURS if goal.better == "higher" else f"{COLOURS}_r")
    for trial in [t for t in trials if t.state == "pruned"]:
        ax.plot(*_line(trial, space), color=GREY, lw=0.6, alpha=0.4)
    for trial in done:
        ax.plot(*_line(trial, space), color=scale.to_rgba(np.array(trial.objectives[0])), lw=1.4)
    for k, parameter in enumerate(space.values()):
        ax.axvline(k, color="#555555", lw=0.8, zorder=1)
        for text, height in _marks(parameter):
            box = {"facecolor": "white", "alpha": 0.75, "pad": 0.8, "linewidth": 0}
            ax.text(k + 0.03, height, text, fontsize=8, va="center", bbox=box)
    ax.set_xticks(range(len(space)), [key.replace(".", ".\n") for key in space])
    ax.set(xlim=(-0.1, len(space) - 1 + 0.35), ylim=(-0.03, 1.03), yticks=[])
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    figure.colorbar(scale, ax=ax, pad=0.02).set_label(goal.axis)
    return figure


@styled
def importances(found: Mapping[str, float]) -> Figure:
    """Draw the share of the first objective's variance that each parameter explains."""
    figure = new_figure(6.4, 0.42 * len(found) + 0.8)
    ax = figure.subplots()
    names = sorted(found, key=lambda name: found[name])
    bars = ax.barh(names, [found[name] for name in names], color=PALETTE[0])
    ax.bar_label(bars, [f"{100 * found[name]:.0f}%" for name in names], padding=3)
    ax.set(xlabel="share of the variance explained (fANOVA)", xlim=(0, 1.08))
    ax.grid(visible=False, axis="y")
    return figure


@styled
def front(trials: Sequence[Tried], best: Sequence[int], objectives: Sequence[str]) -> Figure:
    """Draw the first objective against each of the others, with the Pareto front."""
    first, *others = map(find_objective, objectives)
    figure = new_figure(4.6 * len(others) + 0.4, 3.4)
    axes = np.asarray(figure.subplots(1, len(others), sharey=True, squeeze=False))[0]
    done = [t for t in trials if t.objectives]
    for k, (ax, other) in enumerate(zip(axes, others, strict=True), start=1):
        for of_front, colour, label in ((False, GREY, "dominated"), (True, PALETTE[1], "front")):
            points = [t for t in done if (t.number in best) == of_front]
            ax.plot([other.scale * t.objectives[k] for t in points],
                    [t.objectives[0] for t in points], "o", color=colour, label=label)  # fmt: skip
        for trial in [trial for trial in done if trial.number in best]:
            place = other.scale * trial.objectives[k], trial.objectives[0]
            ax.annotate(str(trial.number), place, xytext=(4, 4), textcoords="offset points",
                        fontsize=8)  # fmt: skip
        ax.set_xlabel(other.axis)
    axes[0].set_ylabel(first.axis)
    axes[0].legend(loc="lower right")
    return figure


def _places(trials: Sequence[Tried], key: str, parameter: Parameter) -> list[Any]:
    """Return where the trials' values lie on an axis."""
    values = [trial.values[key] for trial in trials]
    if parameter.choice is None:
        return values
    return [parameter.choice.index(value) for value in values]


def _scale_axis(ax: Axes, parameter: Parameter) -> None:
    if parameter.choice is not None:
        ax.set_xticks(range(len(parameter.choice)), [str(value) for value in parameter.choice])
        ax.set_xlim(-0.5, len(parameter.choice) - 0.5)
        return
    low, high = parameter.ends
    if parameter.log_uniform or parameter.log_integer:
        ax.set_xscale("log")
        ax.set_xlim(low * (low / high) ** INSIDE, high * (high / low) ** INSIDE)
    else:
        ax.set_xlim(low - INSIDE * (high - low), high + INSIDE * (high - low))


def _height(parameter: Parameter, value: Any) -> float:
    """Return where a value lies between the lowest (0) and the highest (1)."""
    if parameter.choice is not None:
        return parameter.choice.index(value) / (len(parameter.choice) - 1)
    low, high = parameter.ends
    if parameter.log_uniform or parameter.log_integer:
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


def _line(trial: Tried, space: Mapping[str, Parameter]) -> tuple[list[int], list[float]]:
    """Return a trial's line, with gaps at parameters that it did not have."""
    heights = [
        _height(parameter, trial.values[key]) if key in trial.values else math.nan
        for key, parameter in space.items()
    ]
    return list(range(len(space))), heights


def _marks(parameter: Parameter) -> list[tuple[str, float]]:
    """Return the words on a parameter's axis, and their heights."""
    if parameter.choice is not None:
        return [(str(value), _height(parameter, value)) for value in parameter.choice]
    low, high = parameter.ends
    middle = (
        math.sqrt(low * high)
        if parameter.log_uniform or parameter.log_integer
        else (low + high) / 2
    )
    return [(f"{v:.3g}", h) for v, h in ((low, 0.0), (middle, 0.5), (high, 1.0))]


def _quality_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range that the better three quarters of the values fill."""
    low, high = float(np.percentile(values, 25)), max(values)
    spread = max(high - low, 1e-3)
    return low - 0.6 * spread, high + 0.1 * spread


def _frame(
    goal: SweepObjective, done: Sequence[float], cut: Sequence[float]
) -> tuple[float, float]:
    """Return the limits that show the values that matter.

    The worst trials, and what pruned ones had reached early, would press the best ones together:
    what lies beyond is drawn at the edge.
    """
    bad, good = _limits([goal.worth(v) for v in done], [goal.worth(v) for v in cut])
    low, high = sorted((goal.worth(bad), goal.worth(good)))
    return low, high


def _limits(done: Sequence[float], cut: Sequence[float]) -> tuple[float, float]:
    """Return the limits of values of which more is better."""
    values = list(done) or list(cut)
    if not values:
        return 0.0, 1.0
    low, high = _quality_range(values)
    floor = min([*values, *cut])
    bottom = max(low - 0.25 * (high - low), floor - 0.05 * (high - floor))
    return bottom, high + 0.05 * (high - bottom)

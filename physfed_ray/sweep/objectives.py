"""What a sweep can pursue: a metric on validation patients, or what a federation costs."""

import math
from dataclasses import dataclass
from typing import Literal

from physfed_ray.errors import PhysFedError
from physfed_ray.metrics.base import Metric
from physfed_ray.metrics.registry import STANDARD, owner


@dataclass(frozen=True)
class SweepObjective:
    """A number of a finished run that a sweep makes as good as it can.

    Attributes:
        name: As the sweep file names it.
        heading: What tables call it.
        axis: What figures write at its axis.
        unit: Of the printed number.
        better: Its good direction.
        decimals: Digits after the point; None for six digits in all.
        scale: Factor from stored to drawn.
        measured_by: Name of the registry of metrics that measures it; "" for a cost.
    """

    name: str
    heading: str
    axis: str
    unit: str
    better: Literal["higher", "lower"]
    decimals: int | None = None
    scale: float = 1.0
    measured_by: str = ""

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Its good direction as Optuna calls it."""
        return "maximize" if self.better == "higher" else "minimize"

    @property
    def optional(self) -> bool:
        """Whether it is measured in the last evaluation alone, and only where it is asked for."""
        return bool(self.measured_by) and self.measured_by not in STANDARD

    @property
    def labelled(self) -> str:
        """The heading with the unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def worth(self, value: float) -> float:
        """Return a value so that more is better."""
        return value if self.better == "higher" else -value

    def text(self, value: float) -> str:
        """Return a value as a page prints it below the heading."""
        value *= self.scale
        return f"{value:,.6g}" if self.decimals is None else f"{value:.{self.decimals}f}"


COSTS = {
    objective.name: objective
    for objective in (
        SweepObjective(
            "bytes_per_round", "bytes per round", "MB a round, all clients, both ways", "MB",
            "lower", scale=1e-6,
        ),
        SweepObjective("shared_parameters", "shared parameters", "shared parameters", "", "lower"),
        SweepObjective("parameters", "parameters", "parameters, shared and private", "", "lower"),
    )
}  # fmt: skip


def find_objective(name: str) -> SweepObjective:
    """Return an objective.

    Args:
        name: A cost, or the name of a metric's number: ``psnr``, ``ssim[-160,240]``, ``fsim``.

    Raises:
        PhysFedError: There is no such number, or it cannot be pursued.
    """
    if name in COSTS:
        return COSTS[name]
    found = owner(name)
    if found is None:
        raise PhysFedError(
            f"unknown objective '{name}'; there are {', '.join(COSTS)}, and the numbers that "
            "`physfed metrics` prints"
        )
    measured_by, metric = found
    if metric.phantom is not None:
        raise PhysFedError(
            f"'{name}' is measured on a phantom under the test patients' protocol, and a sweep "
            "looks at validation patients alone"
        )
    if metric.better == "neither":
        raise PhysFedError(f"'{name}' has no better direction that a sweep could pursue")
    return _of_metric(name, measured_by, metric)


def _of_metric(name: str, measured_by: str, metric: Metric) -> SweepObjective:
    """Return a metric as an objective, in the unit in which it is stored."""
    heading = metric.heading + name.removeprefix(metric.name).replace("[", " [")
    unit = metric.unit if metric.scale == 1 else ""
    return SweepObjective(
        name,
        heading,
        f"{heading} ({unit}), validation" if unit else f"{heading}, validation",
        unit,
        "lower" if metric.better == "lower" else "higher",
        decimals=metric.decimals + 1 + round(math.log10(metric.scale)),
        measured_by=measured_by,
    )

"""Keys under ``training.objective``: what training minimises, and its settings."""

from typing import TYPE_CHECKING

from physfed_ray.experiment.named import Named
from physfed_ray.objectives.registry import OBJECTIVES

if TYPE_CHECKING:
    from physfed_ray.objectives.base import Objective


class ObjectiveSpec(Named):
    """An objective's name, the mean squared error's by default, and its own settings."""

    registry = OBJECTIVES
    key = "training.objective"
    example = "{name: mse}"
    usual = "mse"

    def make(self) -> "Objective":
        """Return the objective."""
        return OBJECTIVES[self.name](self.settings)

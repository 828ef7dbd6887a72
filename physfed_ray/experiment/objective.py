"""Keys under ``training.objective``: what training minimises, and its settings."""

from pydantic import BaseModel

from physfed_ray.experiment.named import Named
from physfed_ray.objectives.base import Objective
from physfed_ray.objectives.registry import OBJECTIVES


class ObjectiveSpec(Named):
    """An objective's name, the mean squared error's by default, and its own settings."""

    key = "training.objective"
    example = "{name: mse}"
    usual = "mse"

    @classmethod
    def schema_of(cls, name: str) -> type[BaseModel]:
        """See ``Named``."""
        return OBJECTIVES.find(name).Settings

    def make(self) -> Objective:
        """Return the objective."""
        return OBJECTIVES.find(self.name)(self.settings)

"""Keys under ``method``: a method's name and its settings."""

from physfed_ray.experiment.named import Named
from physfed_ray.methods.registry import METHODS


class MethodSpec(Named):
    """A name that `physfed methods` prints, and the method's own settings."""

    registry = METHODS
    key = "method"
    example = "{name: fedavg}"

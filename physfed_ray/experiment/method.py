"""Keys under ``method``: a method's name and its settings."""

from pydantic import BaseModel

from physfed_ray.experiment.named import Named
from physfed_ray.methods.registry import get_method


class MethodSpec(Named):
    """A name that `physfed methods` prints, and the method's own settings."""

    key = "method"
    example = "{name: fedavg}"

    @classmethod
    def schema_of(cls, name: str) -> type[BaseModel]:
        """See ``Named``."""
        return get_method(name).Settings

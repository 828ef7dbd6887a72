"""Keys under ``backbone``: an imaging network's name and its settings."""

from pydantic import BaseModel

from physfed_ray.experiment.named import Named
from physfed_ray.models.base import Backbone
from physfed_ray.models.registry import BACKBONES


class BackboneSpec(Named):
    """A backbone's name, RED-CNN's by default, and the network's own settings."""

    key = "backbone"
    example = "{name: red_cnn, channels: 32}"
    usual = "red_cnn"

    @classmethod
    def schema_of(cls, name: str) -> type[BaseModel]:
        """See ``Named``."""
        return BACKBONES.find(name).Settings

    def make(self) -> Backbone:
        """Return the backbone."""
        return BACKBONES.find(self.name)(self.settings)

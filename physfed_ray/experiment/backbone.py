"""Keys under ``backbone``: an imaging network's name and its settings."""

from typing import TYPE_CHECKING

from physfed_ray.experiment.named import Named
from physfed_ray.models.registry import BACKBONES

if TYPE_CHECKING:
    from physfed_ray.models.base import Backbone


class BackboneSpec(Named):
    """A backbone's name, RED-CNN's by default, and the network's own settings."""

    registry = BACKBONES
    key = "backbone"
    example = "{name: red_cnn, channels: 32}"
    usual = "red_cnn"

    def make(self) -> "Backbone":
        """Return the backbone."""
        return BACKBONES[self.name](self.settings)

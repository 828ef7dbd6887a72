"""Keys under ``front_end``: what makes images from sinograms, and its settings."""

from typing import TYPE_CHECKING

from physfed_ray.experiment.named import Named
from physfed_ray.front_ends.registry import FRONT_ENDS

if TYPE_CHECKING:
    from physfed_ray.front_ends.base import FrontEnd


class FrontEndSpec(Named):
    """A front end's name, the scanner's own FBP by default, and its own settings."""

    registry = FRONT_ENDS
    key = "front_end"
    example = "{name: iradonmap}"
    usual = "fbp"

    def make(self) -> "FrontEnd":
        """Return the front end."""
        return FRONT_ENDS[self.name](self.settings)

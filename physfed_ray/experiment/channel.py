"""Keys under ``federation.channel``: a channel's name and its settings."""

from typing import TYPE_CHECKING

from physfed_ray.experiment.named import Named
from physfed_ray.federation.channel.registry import CHANNELS

if TYPE_CHECKING:
    from physfed_ray.federation.channel.base import Channel


class ChannelSpec(Named):
    """A name of the registry of channels, and the channel's own settings."""

    registry = CHANNELS
    key = "federation.channel"
    example = "{name: plain}"

    def make(self) -> "Channel":
        """Return the channel."""
        return CHANNELS[self.name](self.settings)

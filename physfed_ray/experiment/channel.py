"""Keys under ``federation.channel``: a channel's name and its settings."""

from pydantic import BaseModel

from physfed_ray.experiment.named import Named
from physfed_ray.federation.channel.base import Channel
from physfed_ray.federation.channel.registry import CHANNELS


class ChannelSpec(Named):
    """A name of the registry of channels, and the channel's own settings."""

    key = "federation.channel"
    example = "{name: plain}"

    @classmethod
    def schema_of(cls, name: str) -> type[BaseModel]:
        """See ``Named``."""
        return CHANNELS.find(name).Settings

    def make(self) -> Channel:
        """Return the channel."""
        return CHANNELS.find(self.name)(self.settings)

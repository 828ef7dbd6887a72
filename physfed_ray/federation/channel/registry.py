"""Channels by name: the project's own, and those that other packages register."""

from physfed_ray.federation.channel.base import Channel
from physfed_ray.registry import Registry

CHANNELS: Registry[type[Channel]] = Registry(
    "channel", {"plain": "physfed_ray.federation.channel.plain:Plain"}
)

"""Channels by name: the project's own, and those that other packages register.

Nothing here imports torch: a channel's file is read when its name is first asked for.
"""

from typing import TYPE_CHECKING

from physfed_ray.registry import Registry

if TYPE_CHECKING:
    from physfed_ray.federation.channel.base import Channel

CHANNELS: "Registry[type[Channel]]" = Registry(
    "channel", {"plain": "physfed_ray.federation.channel.plain:Plain"}
)

"""The plain channel: the server sees the weighted sum of what the clients trained, as it is."""

from torch import Tensor

from physfed_ray.federation.channel.base import Arrival, Cargo, Channel


class Plain(Channel):
    """Nothing happens to an update, and nothing is copied."""

    name = "plain"

    def refuses(self, cargo: Cargo) -> str | None:
        """Carry everything."""
        return None

    def each(self, sent: Tensor, arrival: Arrival) -> Tensor:
        """Return what was sent."""
        return sent

"""How far a protocol is from those that a run was trained on, and how far they are apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from physfed_ray.ct.protocol import Protocol
from physfed_ray.federation.routes import nearest_client
from physfed_ray.rundir.model import NamedProtocol


@dataclass(frozen=True)
class Familiarity:
    """Where a protocol lies among the training protocols; Euclidean, in normalised numbers.

    Attributes:
        client: The client whose protocol is nearest.
        distance: To that one.
        usual: The largest distance of a training protocol to the nearest of the others: as if each
            had been the unseen one. None where there is one protocol alone.
    """

    client: str
    distance: float
    usual: float | None

    @property
    def warning(self) -> str | None:
        """A sentence where the protocol is farther away than any training protocol was."""
        if self.usual is None:
            if self.distance == 0:
                return None
            return (
                f"the run knows one protocol, that of client {self.client}, and this one differs "
                "from it: nothing says how well the model serves it, so look at the images"
            )
        if self.distance <= self.usual:
            return None
        return (
            f"the nearest training protocol (client {self.client}) is at distance "
            f"{self.distance:.3f}, farther than any training protocol is from the next one "
            f"({self.usual:.3f}): the model may not serve this scanner well, so look at the images"
        )


def familiarity(
    protocol: Protocol, clients: Sequence[NamedProtocol], further: Sequence[str] = ()
) -> Familiarity:
    """Compare a protocol with the training protocols.

    Args:
        protocol: How the images were scanned.
        clients: The training clients.
        further: Names of the further fields that g holds.
    """
    known = [_numbers(client.protocol, further) for client in clients]
    index, distance = nearest_client(_numbers(protocol, further), known)
    different = sorted(set(known))
    apart = [
        nearest_client(g, [other for other in different if other != g])[1]
        for g in different
        if len(different) > 1
    ]
    return Familiarity(clients[index].id, distance, max(apart) if apart else None)


def _numbers(protocol: Protocol, further: Sequence[str]) -> tuple[float, ...]:
    return tuple(float(v) for v in np.asarray(protocol.normalised(tuple(further))))

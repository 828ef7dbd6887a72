"""What every runtime offers to the rounds: the same few calls, wherever the hosts live."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from physfed_ray.federation.spec import Spec, assign

Call = tuple[int, str, Sequence[Any]]  # host, method, arguments


@dataclass(frozen=True)
class Lost:
    """A host that gave no answer.

    Attributes:
        reason: Why, in words for the user.
        dead: True when its process is gone, False when it was only too slow.
    """

    reason: str
    dead: bool


class Runtime(ABC):
    """Hosts and a parameter server, reached through calls.

    A handle is whatever the runtime uses to name a value that stays where it is (an object
    reference on Ray, the value itself in one process).

    Attributes:
        assignment: The client indices of each host.
    """

    def __init__(self, spec: Spec, hosts: int) -> None:
        self.spec = spec
        self.assignment = assign([client.slices for client in spec.clients], hosts)
        self.host_of = {c: h for h, clients in enumerate(self.assignment) for c in clients}

    @abstractmethod
    def publish(self) -> tuple[Any, Any]:
        """Make the shared vector reachable by every host; return handles (vector, extras)."""

    @abstractmethod
    def train(
        self, calls: Mapping[int, Sequence[Any]], timeout_s: float | None
    ) -> dict[int, tuple[Any, Any] | Lost]:
        """Call ``Host.train`` with the given arguments on each host.

        Returns:
            Per host the results and a handle on its pieces, or why there are none.
        """

    @abstractmethod
    def start(self, calls: Sequence[Call]) -> list[Any]:
        """Begin calls side by side and return handles on their values, in order.

        A handle may be an argument of a later call: its value then goes from host to host.
        """

    @abstractmethod
    def fetch(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for values."""

    @abstractmethod
    def server(self, name: str, *arguments: Any) -> Any:
        """Call the parameter server and return the value."""

    @abstractmethod
    def restart(self, host: int) -> None:
        """Replace a dead host by a fresh one with the same clients."""

    @abstractmethod
    def close(self) -> None:
        """End the hosts and the server."""

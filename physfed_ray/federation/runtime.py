"""What every runtime offers to the rounds: the same few calls, wherever the hosts live."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from physfed_ray.errors import PhysFedError
from physfed_ray.federation.orders import Order
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


class ActorLostError(Exception):
    """A host, the parameter server or a value of theirs is gone; what was begun must be redone."""


class Runtime(ABC):
    """Hosts and a parameter server, reached through calls.

    A handle is whatever the runtime uses to name a value that stays where it is (an object
    reference on Ray, the value itself in one process).

    Args:
        spec: The federation.
        groups: Hosts of each node.

    Attributes:
        assignment: The member indices of each host, ascending; none for a host lost for good.
        notice: Receives one line of text when something happens that the user should know.
    """

    def __init__(self, spec: Spec, groups: Sequence[int]) -> None:
        self.spec = spec
        nodes = assign([member.slices for member in spec.members], groups)
        self.assignment: list[Sequence[int]] = [clients for node in nodes for clients in node]
        self.notice: Callable[[str], None] = lambda text: None
        self._index()

    def _index(self) -> None:
        self.host_of = {c: h for h, clients in enumerate(self.assignment) for c in clients}

    def clients_of(self, host: int) -> list[int]:
        """Return the indices of a host's clients, without the server."""
        return [member for member in self.assignment[host] if self.spec.is_client(member)]

    @property
    def hosts(self) -> list[int]:
        """Hosts that have members."""
        return [host for host, clients in enumerate(self.assignment) if clients]

    def hand_over(self, host: int) -> None:
        """Give the clients of a host that is lost for good to the others, the idlest first.

        Raises:
            PhysFedError: There is no other host.
        """
        orphans, self.assignment[host] = self.assignment[host], ()
        if not self.hosts:
            raise PhysFedError(
                "all hosts are lost and no machine took their place: add machines, and run again "
                "with --resume"
            )
        slices = [member.slices for member in self.spec.members]
        for client in orphans:
            idlest = min(self.hosts, key=lambda h: sum(slices[c] for c in self.assignment[h]))
            self.assignment[idlest] = sorted([*self.assignment[idlest], client])
        self._index()

    @abstractmethod
    def publish(self) -> tuple[Any, Any]:
        """Make the shared vector reachable by every host; return handles (vector, extras)."""

    @abstractmethod
    def recall(self, number: int) -> tuple[Any, Any]:
        """Do the same with the vector of an earlier round, from its checkpoint."""

    @abstractmethod
    def train(
        self, orders: Mapping[int, tuple[Order, Sequence[Any]]], timeout_s: float | None
    ) -> dict[int, tuple[Any, Any] | Lost]:
        """Call ``Host.train`` on each host with its order and the handles that go with it.

        Returns:
            Per host the results and a handle on its pieces, or why there are none.
        """

    @abstractmethod
    def combine(self, pieces: Sequence[tuple[int, Any]]) -> list[Any]:
        """Add up the pieces of hosts that share a node; return one handle a node.

        Where the method is not linear nothing is added up: a handle for each host is returned.
        """

    @abstractmethod
    def start(self, calls: Sequence[Call]) -> list[Any]:
        """Begin calls side by side and return handles on their values, in order.

        A handle may be an argument of a later call: its value then goes from host to host.
        """

    @abstractmethod
    def fetch(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for values.

        Raises:
            ActorLostError: A host or a value is gone.
        """

    @abstractmethod
    def server(self, name: str, *arguments: Any) -> Any:
        """Call the parameter server and return the value.

        Raises:
            ActorLostError: The server or an argument is gone.
        """

    @abstractmethod
    def restart(self, host: int) -> None:
        """Replace a host by a fresh one with the same clients, or hand its clients over."""

    @abstractmethod
    def repair(self) -> None:
        """Replace whatever died, hosts and server; the server then stands at its beginning."""

    @abstractmethod
    def close(self) -> None:
        """End the hosts and the server."""

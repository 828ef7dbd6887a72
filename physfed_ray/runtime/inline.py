"""The inline runtime: hosts and server in this very process, for laptops and debuggers."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from physfed_ray.federation.client.host import Host
from physfed_ray.federation.orders import Order
from physfed_ray.federation.runtime import Call, Lost, Runtime
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec


class InlineRuntime(Runtime):
    """Every client on one host, in turn; the same objects that Ray's actors hold."""

    def __init__(self, spec: Spec, hosts: int = 1) -> None:
        super().__init__(spec, (hosts,))
        self._server = ParameterServer(spec)
        self._hosts = [Host(spec) for _ in self.assignment]

    def publish(self) -> tuple[Any, Any]:
        """See ``Runtime.publish``; a copy, because the server goes on to change its vector."""
        vector, extras = self._server.broadcast()
        return vector.copy(), extras

    def recall(self, number: int) -> tuple[Any, Any]:
        """See ``Runtime.recall``."""
        return self._server.recall(number)

    def train(
        self, orders: Mapping[int, tuple[Order, Sequence[Any]]], timeout_s: float | None
    ) -> dict[int, tuple[Any, Any] | Lost]:
        """See ``Runtime.train``; in one process nothing can hang unseen, so no timeout."""
        return {
            host: self._hosts[host].train(order, *given) for host, (order, given) in orders.items()
        }

    def combine(self, pieces: Sequence[tuple[int, Any]]) -> list[Any]:
        """See ``Runtime.combine``; all hosts share this process, and nothing travels."""
        return [handle for _, handle in pieces]

    def start(self, calls: Sequence[Call]) -> list[Any]:
        """See ``Runtime.start``."""
        return [attrgetter(name)(self._hosts[host])(*arguments) for host, name, arguments in calls]

    def fetch(self, handles: Sequence[Any]) -> list[Any]:
        """See ``Runtime.fetch``."""
        return list(handles)

    def server(self, name: str, *arguments: Any) -> Any:
        """See ``Runtime.server``."""
        return getattr(self._server, name)(*arguments)

    def restart(self, host: int) -> None:
        """See ``Runtime.restart``."""
        self._hosts[host] = Host(self.spec)

    def repair(self) -> None:
        """Nothing dies alone in one process."""

    def close(self) -> None:
        """Nothing to end."""

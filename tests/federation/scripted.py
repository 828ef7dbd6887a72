"""A runtime in this process that loses, on command, what a cluster may lose.

A script says at which call something is lost and what. Calls are counted from 1, by name:
``publish``, ``recall``, ``train``, ``combine``, ``fetch``, ``restart``, ``repair``,
``server.NAME`` and, for what a host begins, ``start.NAME``. What is lost is noticed where Ray would
notice it, and said in the same words. tests/faults kills real processes to show that this is so.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from physfed_ray.federation.client.host import Host
from physfed_ray.federation.client.training import ClientResult, train_client
from physfed_ray.federation.orders import Order
from physfed_ray.federation.runtime import ActorLostError, Call, Lost
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from physfed_ray.runtime.inline import InlineRuntime

Loss = Callable[["ScriptedRuntime"], None]


@dataclass(frozen=True)
class At:
    """One line of a script.

    Attributes:
        call: Name of the call.
        number: Which call of this name, 1 for the first.
        losses: What is lost there.
        after: Once the call has done its work, but before its answer arrives.
    """

    call: str
    number: int
    losses: tuple[Loss, ...]
    after: bool = False


def at(call: str, number: int, *losses: Loss) -> At:
    """Lose something just before a call."""
    return At(call, number, losses)


def after(call: str, number: int, *losses: Loss) -> At:
    """Lose something when a call has done its work and its answer is still on its way."""
    return At(call, number, losses, after=True)


def dies(*hosts: int) -> Loss:
    """Kill the processes of hosts."""
    return lambda runtime: runtime.dead.update(hosts)


def is_slow(*hosts: int) -> Loss:
    """Let hosts give no answer to the next order."""
    return lambda runtime: runtime.slow.update(hosts)


def no_machine(*hosts: int) -> Loss:
    """Let no machine take the place of hosts from now on."""
    return lambda runtime: runtime.given_up.update(hosts)


def server_dies(runtime: "ScriptedRuntime") -> None:
    """Kill the parameter server's process."""
    runtime.server_dead = True


def forgotten(kind: str) -> Loss:
    """Lose every published 'vector', or all 'pieces', or the values of one kind of host call."""

    def forget(runtime: "ScriptedRuntime") -> None:
        for handle in runtime.handles:
            if handle.kind == kind:
                handle.error = "{} lost a value that it needed (ObjectLostError)"

    return forget


def sends_nothing(*clients: int, diverged: bool = False) -> Loss:
    """Let clients take no part in the next order."""
    why = "loss is nan" if diverged else "it has left"
    return lambda runtime: runtime.absent.update(
        {c: ClientResult(runtime.spec.members[c].id, missing=why, diverged=diverged)
         for c in clients}
    )  # fmt: skip


@dataclass
class Handle:
    """What stands for a value that stays where it is.

    Attributes:
        error: Why there is no value any more, with a place for who notices.
    """

    kind: str
    content: Any = None
    error: str = ""

    def value(self, who: str) -> Any:
        """Return the value.

        Raises:
            ActorLostError: It is gone.
        """
        if self.error:
            raise ActorLostError(self.error.format(who))
        return self.content


class ScriptedRuntime(InlineRuntime):
    """The inline runtime with a script of losses.

    Args:
        spec: The federation.
        hosts: Number of hosts.
        script: What is lost when.

    Attributes:
        dead: Hosts without a process.
        slow: Hosts that do not answer their order.
        given_up: Hosts in whose place no machine comes.
        absent: Clients that take no part in the next order, with what their host says.
        calls: How often each call was made.
    """

    def __init__(self, spec: Spec, hosts: int = 1, script: Sequence[At] = ()) -> None:
        super().__init__(spec, hosts)
        self._hosts = [self._fresh() for _ in self.assignment]
        self._left = list(script)
        self.dead: set[int] = set()
        self.slow: set[int] = set()
        self.given_up: set[int] = set()
        self.absent: dict[int, ClientResult] = {}
        self.server_dead = False
        self.handles: list[Handle] = []
        self.calls: Counter[str] = Counter()

    def all_happened(self) -> bool:
        """Say whether the whole script was played."""
        return not self._left

    def _fresh(self) -> Host:
        return Host(self.spec, train=self._train_client)

    def _train_client(self, *arguments: Any) -> ClientResult:
        """Train, unless the client is to be missing."""
        return self.absent.get(arguments[5].client.index) or train_client(*arguments)

    def _begin(self, call: str) -> None:
        self.calls[call] += 1
        self._lose(call, after=False)

    def _lose(self, call: str, *, after: bool) -> None:
        due = [a for a in self._left if (a.call, a.number, a.after)
               == (call, self.calls[call], after)]  # fmt: skip
        for line in due:
            self._left.remove(line)
            for loss in line.losses:
                loss(self)

    def _handle(self, kind: str, content: Any = None, error: str = "") -> Handle:
        content = pickle.loads(pickle.dumps(content))  # a host uses its buffers again
        self.handles.append(Handle(kind, content, error))
        return self.handles[-1]

    def publish(self) -> tuple[Any, Any]:
        """See ``Runtime.publish``."""
        return self._published("publish", super().publish)

    def recall(self, number: int) -> tuple[Any, Any]:
        """See ``Runtime.recall``."""
        return self._published("recall", lambda: self._server.recall(number))

    def _published(self, call: str, make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        self._begin(call)
        self._need_server()
        vector, extras = make()
        self._lose(call, after=True)
        self._need_server()
        return self._handle("vector", vector), self._handle("extras", extras)

    def train(
        self, orders: Mapping[int, tuple[Order, Sequence[Any]]], timeout_s: float | None
    ) -> dict[int, tuple[Any, Any] | Lost]:
        """See ``Runtime.train``."""
        self._begin("train")
        outcome: dict[int, tuple[Any, Any] | Lost] = {}
        for host, (order, given) in orders.items():
            if host in self.dead or host in self.slow:
                continue
            values = [handle.value(f"host-{host}") for handle in given]
            results, pieces = self._hosts[host].train(order, *values)
            outcome[host] = results, self._handle("pieces", pieces)
        self.absent.clear()
        self._lose("train", after=True)
        silent = {h: Lost(f"host-{h} gave no answer", dead=False) for h in self.slow}
        gone = {h: Lost(f"the process of host-{h} died", dead=True) for h in self.dead}
        return outcome | {h: lost for h, lost in (silent | gone).items() if h in orders}

    def combine(self, pieces: Sequence[tuple[int, Any]]) -> list[Any]:
        """See ``Runtime.combine``."""
        self._begin("combine")
        return super().combine(pieces)

    def start(self, calls: Sequence[Call]) -> list[Any]:
        """See ``Runtime.start``; what was lost is noticed by ``fetch``."""
        return [self._start(*call) for call in calls]

    def _start(self, host: int, name: str, arguments: Sequence[Any]) -> Handle:
        self._begin(f"start.{name}")
        if host in self.dead:
            return self._handle(name, error="the process of {} died")
        try:
            values = [a.value("a host") if isinstance(a, Handle) else a for a in arguments]
        except ActorLostError:
            return self._handle(name, error="{} lost a value that it needed (ObjectLostError)")
        handle = self._handle(name, attrgetter(name)(self._hosts[host])(*values))
        self._lose(f"start.{name}", after=True)
        if host in self.dead:
            handle.error = "the process of {} died"
        return handle

    def fetch(self, handles: Sequence[Any]) -> list[Any]:
        """See ``Runtime.fetch``."""
        self._begin("fetch")
        return [handle.value("a host") for handle in handles]

    def server(self, name: str, *arguments: Any) -> Any:
        """See ``Runtime.server``."""
        self._begin(f"server.{name}")
        self._need_server()
        who = "the parameter server"
        values = [a.value(who) if isinstance(a, Handle) else a for a in arguments]
        answer = super().server(name, *values)
        self._lose(f"server.{name}", after=True)
        self._need_server()
        return answer

    def _need_server(self) -> None:
        if self.server_dead:
            raise ActorLostError("the process of the parameter server died")

    def restart(self, host: int) -> None:
        """See ``Runtime.restart``."""
        self._begin("restart")
        self.dead.discard(host)
        self.slow.discard(host)
        if host in self.given_up:
            self.hand_over(host)
            self.notice(f"no machine took the place of host-{host}: its clients moved to other "
                        "hosts")  # fmt: skip
            return
        self._hosts[host] = self._fresh()
        self._lose("restart", after=True)
        if host in self.dead:
            raise ActorLostError(f"the process of host-{host} died")

    def repair(self) -> None:
        """See ``Runtime.repair``."""
        self._begin("repair")
        for host in sorted(self.dead & set(self.hosts)):
            self.restart(host)
        if self.server_dead:
            self._server, self.server_dead = ParameterServer(self.spec), False
        self._lose("repair", after=True)
        self._need_server()

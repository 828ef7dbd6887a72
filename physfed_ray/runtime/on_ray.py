"""The Ray runtime: every host an actor with its slice, the parameter server an actor."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Federation
from physfed_ray.federation.orders import Order
from physfed_ray.federation.runtime import ActorLostError, Call, Lost, Runtime
from physfed_ray.federation.spec import Spec
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.actors import ServerActor, remote_host
from physfed_ray.runtime.files import lend, ship, without_run_directory
from physfed_ray.runtime.placement import Placed, is_ready, node_of
from physfed_ray.runtime.pooled import Workers
from physfed_ray.runtime.pooled_worker import WorkersLostError

GRACE_S = 5.0
ALIVE_S = 30.0
"""A live actor answers a ping within this time, however busy it is."""
STARTS = 5
"""Times that hosts or the server may die while they start."""
AGAIN_S = 1.0
"""Between two attempts to start a host in the place of a lost one."""
FIRST_WORD_S = 300.0
"""After this time without an answer the user is told whom the round waits for."""
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


class RayRuntime(Runtime):
    """Hosts as actors; vectors travel through the object store and never through the driver.

    Every group of hosts is a placement group on one node. They are numbered by node, so that the
    hosts of a node have neighbouring clients and their sums join.

    Args:
        spec: The federation.
        placed: The hosts' places.
        settings: How long to wait for machines.
        run: Name of the run, in the names of the actors.
    """

    def __init__(
        self, spec: Spec, placed: Placed, settings: Federation | None = None, run: str = "run"
    ) -> None:
        self._settings = settings or Federation()
        self._slots, self._placed, self._run = placed.slots, placed, run
        by_node: dict[str, list[tuple[PlacementGroup, int]]] = {}
        for group, size in zip(placed.groups, placed.slots.groups, strict=True):
            by_node.setdefault(node_of(group), []).extend((group, i) for i in range(size))
        self._bundles = [bundle for bundles in by_node.values() for bundle in bundles]
        super().__init__(spec, [len(bundles) for bundles in by_node.values()])
        self._given_up: list[PlacementGroup] = []
        self._spec_handle = ray.put(spec)
        self._environment = {"env_vars": THREADS | {"OMP_NUM_THREADS": str(spec.training.threads)}}
        self._assets = lend(spec.assets)
        self._workers = (
            Workers(spec, self._environment, self._assets) if spec.method.pooled else None
        )
        self._server = self._start_server()
        self._hosts: list[Any] = [self._start(host) for host in range(placed.slots.hosts)]
        self._nodes: dict[int, str] = {}
        self._settle()

    def _settle(self) -> None:
        """Wait until all are there with their files, and replace what dies meanwhile.

        Raises:
            PhysFedError: Something dies again and again, or they do not share a run directory.
        """
        for attempt in range(STARTS):
            try:
                if attempt:
                    self.repair()
                for host in self.hosts:
                    word = self._hosts[host].node.remote()
                    self._nodes[host] = _get(word, self._name(host))
                    self._bring_files(host)
                self._server_node = _get(self._server.node.remote(), "the parameter server")
                self._check_run_directory()
                return
            except ActorLostError as error:
                lost = error
        self.close()
        raise PhysFedError(
            f"{lost} while the hosts started, for the {STARTS}th time: look into its cause "
            "(memory, disk, a machine that goes away), and run again with --resume"
        ) from lost

    def _start_server(self) -> Any:
        """Start the parameter server where the driver is: a machine that is not to go away."""
        here = ray.get_runtime_context().get_node_id()
        return (
            ray.remote(ServerActor)
            .options(
                num_cpus=0,
                runtime_env=self._environment,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            )
            .remote(self._spec_handle, self._run, self._assets)
        )

    def _start(self, host: int) -> Any:
        group, bundle = self._bundles[host]
        return (
            remote_host()
            .options(
                num_cpus=self._slots.num_cpus,
                num_gpus=self._slots.num_gpus,
                runtime_env=self._environment,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
            )
            .remote(
                self._spec_handle,
                self._run,
                self._name(host),
                self._slots.num_gpus,
                None if self._workers is None else self._workers.mailbox,
                self._assets,
            )
        )

    def _name(self, host: int) -> str:
        """Return a name that says which clients live there."""
        clients = [self.spec.members[c].id for c in self.assignment[host]]
        span = clients[0] if len(clients) == 1 else f"{clients[0]}..{clients[-1]}"
        return f"host-{host}:{span}"

    def _bring_files(self, host: int) -> None:
        """Send a host the prepared files that its node does not have."""
        paths = [path for c in self.assignment[host] for path in self.spec.all_files(c)]
        paths += [unseen.test for unseen in self.spec.unseen]
        try:
            sent = ship(self._hosts[host], paths)
        except ray.exceptions.RayActorError as error:
            raise ActorLostError(_reason(error, self._name(host))) from error
        if sent:
            self.notice(f"{self._name(host)}: sent {sent / 1e6:.0f} MB of prepared data")

    def _check_run_directory(self) -> None:
        if self.spec.run_root is None:
            return
        root = RunDirectory(self.spec.run_root).local_path
        hosts = [self._hosts[host] for host in self.hosts]
        try:
            blind = [] if root is None else without_run_directory(root, hosts)
        except ray.exceptions.RayActorError as error:
            raise ActorLostError(_reason(error, "a host")) from error
        if blind:
            raise PhysFedError(
                f"the run directory {self.spec.run_root} is not the same folder on all machines "
                f"({len(blind)} of {len(hosts)} hosts do not see it): choose --out on a "
                "folder that they share, or a bucket such as s3://NAME/runs"
            )

    def publish(self) -> tuple[Any, Any]:
        """See ``Runtime.publish``."""
        vector, extras = self._server.publish.remote(None)
        _get(extras, "the parameter server")
        return vector, extras

    def recall(self, number: int) -> tuple[Any, Any]:
        """See ``Runtime.recall``."""
        vector, extras = self._server.publish.remote(number)
        _get(extras, "the parameter server")
        return vector, extras

    def train(
        self, orders: Mapping[int, tuple[Order, Sequence[Any]]], timeout_s: float | None
    ) -> dict[int, tuple[Any, Any] | Lost]:
        """See ``Runtime.train``."""
        if self._workers is not None:
            self._workers.ensure()
        handles = {
            host: self._hosts[host].train.remote(order, *given)
            for host, (order, given) in orders.items()
        }
        began = time.monotonic()
        ends = None if timeout_s is None else began + timeout_s + GRACE_S
        self._wait([results for results, _ in handles.values()], list(handles), ends)
        outcome: dict[int, tuple[Any, Any] | Lost] = {}
        for host, (results, pieces) in handles.items():
            left = None if ends is None else max(0.0, ends - time.monotonic())
            try:
                outcome[host] = ray.get(results, timeout=left), pieces
            except ray.exceptions.GetTimeoutError:
                outcome[host] = Lost(f"{self._doing(host)} gave no answer", dead=False)
            except ray.exceptions.RayError as error:
                reason = _reason(error, self._name(host))
                if not self._alive(self._hosts[host]):
                    outcome[host] = Lost(reason, dead=True)
                else:
                    raise ActorLostError(reason) from error
        return outcome

    def _wait(self, handles: list[Any], hosts: list[int], ends: float | None) -> None:
        """Wait for hosts, and say from time to time for which ones."""
        patience = FIRST_WORD_S
        left = dict(zip(handles, hosts, strict=True))
        while left:
            remaining = math.inf if ends is None else max(0.0, ends - time.monotonic())
            timeout = min(patience, remaining)
            ready, _ = ray.wait(
                list(left), num_returns=len(left), timeout=timeout, fetch_local=False
            )
            for handle in ready:
                del left[handle]
            if timeout == remaining:  # by the clock, Ray's wait can end a little early
                return
            if left:
                busy = "; ".join(self._doing(host) for host in list(left.values())[:4])
                self.notice(
                    f"still waiting for {len(left)} of {len(hosts)} hosts ({busy}); "
                    "federation.deadline_s would go on without them"
                )
                patience *= 2

    def _doing(self, host: int) -> str:
        """Say which client a host is training."""
        try:
            client = ray.get(self._hosts[host].doing.remote(), timeout=GRACE_S)
        except ray.exceptions.RayError:
            client = None
        return f"{self._name(host)}" + (f", training {client}," if client else "")

    def combine(self, pieces: Sequence[tuple[int, Any]]) -> list[Any]:
        """See ``Runtime.combine``; the first host of a node adds up for all of them.

        Not on the parameter server's own node, where it reads every piece from shared memory, and
        not where the method needs every client's vector.
        """
        if not self.spec.method.linear:
            return [handle for _, handle in pieces]
        by_node: dict[str, list[tuple[int, Any]]] = {}
        for host, handle in pieces:
            by_node.setdefault(self._nodes[host], []).append((host, handle))
        sums: list[Any] = []
        for node, parts in by_node.items():
            handles = [handle for _, handle in parts]
            if len(handles) > 1 and node != self._server_node:
                handles = [self._hosts[parts[0][0]].merge.remote(*handles)]
            sums += handles
        return sums

    def start(self, calls: Sequence[Call]) -> list[Any]:
        """See ``Runtime.start``."""
        return [self._hosts[host].call.remote(name, *arguments) for host, name, arguments in calls]

    def fetch(self, handles: Sequence[Any]) -> list[Any]:
        """See ``Runtime.fetch``."""
        return list(_get(list(handles), "a host"))

    def server(self, name: str, *arguments: Any) -> Any:
        """See ``Runtime.server``."""
        return _get(self._server.call.remote(name, *arguments), "the parameter server")

    def restart(self, host: int) -> None:
        """See ``Runtime.restart``."""
        ray.kill(self._hosts[host])
        ends = time.monotonic() + self._settings.replace_s
        group, _ = self._bundles[host]
        while group not in self._given_up and is_ready(
            group, (left := max(0.0, ends - time.monotonic()))
        ):
            self._hosts[host] = self._start(host)
            word = self._hosts[host].node.remote()
            ready, _ = ray.wait([word], timeout=left)
            if not ready and is_ready(group, 0):  # it has a place, and is about to start there
                ready, _ = ray.wait([word], timeout=ALIVE_S)
            if ready and self._alive(self._hosts[host]):
                self._nodes[host] = ray.get(ready[0])
                self._bring_files(host)
                return
            ray.kill(self._hosts[host])
            if not left:
                break
            time.sleep(AGAIN_S)  # Ray takes a while to learn that the place's node is gone
        name = self._name(host)
        self._given_up.append(group)  # the other hosts there need not wait for it again
        self.hand_over(host)
        if all(self._bundles[other][0] != group for other in self.hosts):
            remove_placement_group(group)  # else Ray's head looks for a place, busily and for ever
        self.notice(f"no machine took the place of {name}: its clients moved to other hosts")
        for other in self.hosts:
            if self._alive(self._hosts[other]):  # another lost one gets its files when replaced
                self._bring_files(other)

    def repair(self) -> None:
        """See ``Runtime.repair``."""
        for host in self.hosts:
            if not self._alive(self._hosts[host]):
                self.restart(host)
        if not self._alive(self._server):
            self._server = self._start_server()
            self._server_node = _get(self._server.node.remote(), "the parameter server")

    def _alive(self, actor: Any) -> bool:
        try:
            ray.get(actor.ping.remote(), timeout=ALIVE_S)
        except ray.exceptions.GetTimeoutError:
            return True
        except ray.exceptions.RayError:
            return False
        return True

    def close(self) -> None:
        """Kill the actors and give their places back."""
        if self._workers is not None:
            self._workers.close()
        for actor in [*self._hosts, self._server]:
            ray.kill(actor)
        self._placed.close()


def _get(handles: Any, who: str) -> Any:
    try:
        return ray.get(handles)
    except ray.exceptions.RayError as error:
        raise ActorLostError(_reason(error, who)) from error


def _reason(error: Exception, who: str) -> str:
    """Return why a call failed; an error of our own is raised as it was, with its traceback.

    Raises:
        Exception: The user's mistake, or the remote exception.
    """
    if isinstance(error, ray.exceptions.RayTaskError):
        if isinstance(error.cause, PhysFedError):
            raise error.cause from None
        if isinstance(error.cause, WorkersLostError):
            return f"a worker of {who} died"
        if not isinstance(error.cause, ray.exceptions.RayError):
            raise error
        return f"{who} lost a value that it needed ({type(error.cause).__name__})"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return f"{who} was ended because its machine ran out of memory"
    if isinstance(error, ray.exceptions.RayActorError):
        return f"the process of {who} died"
    return f"{who} lost a value that it needed ({type(error).__name__})"

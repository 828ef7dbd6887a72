"""A Ray cluster of several nodes on this machine, whose processes can be killed one by one.

Nodes are real raylets; the cluster is started from the test's process, which does not join it.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 2**20
PATIENCE_S = 300.0
SYSTEM = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 5,
    "gcs_rpc_server_reconnect_timeout_s": 20,  # busy machines are silent for over 5 s
    "enable_worker_prestart": False,
    "prestart_worker_first_driver": False,
}


class Nodes:
    """A cluster's head, which has no CPUs for hosts, and the nodes that were added to it.

    Args:
        head_cpus: CPUs of the head.
        head: More of what Ray is told when the head starts.
    """

    def __init__(self, head_cpus: int = 0, **head: Any) -> None:
        self._cluster = Cluster()
        self._cluster.add_node(
            num_cpus=head_cpus,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            _system_config=SYSTEM,
            **head,
        )
        self._added: list[Any] = []
        # A driver joins the node that has its own address: always the head.
        self._addresses = count(2)

    @property
    def address(self) -> str:
        """Where a driver finds the cluster."""
        return str(self._cluster.address)

    def add(self, cpus: int = 1, environment: dict[str, str] | None = None, **more: Any) -> Any:
        """Add a node, whose processes may have more environment variables."""
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            node = self._cluster.add_node(
                num_cpus=cpus,
                object_store_memory=STORE_BYTES,
                node_ip_address=f"127.0.0.{next(self._addresses)}",
                **more,
            )
        finally:
            for name in environment or {}:
                del os.environ[name]
            os.environ.update(before)
        self._added.append(node)
        return node

    def kill(self, node: Any) -> None:
        """Kill a whole node, as a machine that loses its power."""
        for pid in _with_descendants(_pids(node)):
            _kill(pid)
        self._cluster.remove_node(node, allow_graceful=False)
        self._added.remove(node)

    def wait(self) -> None:
        """Wait until the cluster knows which nodes are left."""
        self._cluster.wait_for_nodes()

    def kill_all_but_the_head(self) -> None:
        """Kill every node that was added, and wait until the cluster knows."""
        for node in list(self._added):
            self.kill(node)
        self.wait()

    def kill_gcs(self) -> None:
        """Kill the head's global control service."""
        self._cluster.head_node.kill_gcs_server()

    def restart_gcs(self) -> None:
        """Start it again."""
        self._cluster.head_node.start_gcs_server()

    def processes(self, word: str) -> list[int]:
        """Return the process ids of actors and tasks whose title contains a word."""
        return [pid for node in self._all() for pid in self.processes_of(node, word)]

    def processes_of(self, node: Any, word: str) -> list[int]:
        """Return those of one node."""
        return [p for p in _with_descendants(_pids(node)) if word in title(p)]

    def kill_process(self, word: str) -> int:
        """Wait for an actor or task whose title contains a word, kill it, return its id."""
        found = wait_for(lambda: self.processes(word), f"a process named {word}")
        _kill(found[0])
        return found[0]

    def shutdown(self) -> None:
        """End all processes."""
        self._cluster.shutdown()

    def _all(self) -> list[Any]:
        return [self._cluster.head_node, *self._added]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def wait_for(look: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until something is there, and return it."""
    ends = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def title(pid: int) -> str:
    """Return a process's command line, empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


@contextmanager
def nodes(**head: Any) -> Iterator[Nodes]:
    """Start a cluster and end it."""
    cluster = Nodes(**head)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def _pids(node: Any) -> list[int]:
    return [p.process.pid for processes in node.all_processes.values() for p in processes]


def _with_descendants(pids: list[int]) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            stat = (entry / "stat").read_text()
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found = list(pids)
    for pid in found:
        found += parents.get(pid, [])
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

"""A Ray cluster of two nodes on this machine, the second of which may see other files.

Its driver runs in a process of its own, so that the Ray of the test session is left alone.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

STORE_BYTES = 80 * 2**20
JOIN_S = 180.0


@dataclass(frozen=True)
class SecondNode:
    """The second node: its cluster, its id, its processes, which are one group, and later nodes."""

    cluster: Cluster
    id: str
    process: subprocess.Popen[bytes]
    added: list[Any] = field(default_factory=list)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a process of the second node."""
        there = NodeAffinitySchedulingStrategy(self.id, soft=False)
        task = ray.remote(num_cpus=0)(function).options(scheduling_strategy=there)
        return ray.get(task.remote(*arguments))

    def kill(self) -> None:
        """Kill the whole node, as a machine that loses its power."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def add(self, cpus: int) -> Any:
        """Add a node that sees the driver's files."""
        node = self.cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)
        self.added.append(node)
        return node

    def kill_added(self, node: Any) -> None:
        """Kill a whole node that was added."""
        self.cluster.remove_node(node, allow_graceful=False)


def require_private_mounts() -> None:
    """Skip the test where a process may not have files of its own."""
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("mount namespaces need the right to unshare and mount")


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function in a new process and return what it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def two_nodes(
    first_cpus: int,
    second_cpus: int,
    hidden: Sequence[Path] = (),
    then: str = "true",
    environment: dict[str, str] | None = None,
) -> Iterator[SecondNode]:
    """Connect this process to a cluster of two nodes.

    Args:
        first_cpus: CPUs of the node that this process runs on.
        second_cpus: CPUs of the other.
        hidden: Folders instead of which the second node sees empty ones of its own.
        then: Shell commands in the second node's view of the files.
        environment: More environment variables of the second node.
    """
    config = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster()
    cluster.add_node(
        num_cpus=first_cpus,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        _system_config=config,
    )
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    first = {node["NodeID"] for node in ray.nodes()}
    start = (
        f"{shutil.which('ray', path=Path(sys.executable).parent)} start "
        f"--address={cluster.address} --num-cpus={second_cpus} "
        f"--object-store-memory={STORE_BYTES} --block"
    )
    mounts = "".join(f"mount -t tmpfs none '{folder}' && " for folder in hidden)
    command = ["sh", "-c", f"{mounts}{then} && exec {start}"]
    process = subprocess.Popen(
        ["unshare", "--mount", *command] if hidden else command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | (environment or {}),
        start_new_session=True,
    )
    try:
        yield SecondNode(cluster, _joined(first), process)
    finally:
        ray.shutdown()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        cluster.shutdown()


def _joined(before: set[str]) -> str:
    give_up = time.monotonic() + JOIN_S
    while time.monotonic() < give_up:
        for node in ray.nodes():
            if node["NodeID"] not in before and node["Alive"]:
                return str(node["NodeID"])
        time.sleep(0.2)
    raise TimeoutError("the second node did not join")

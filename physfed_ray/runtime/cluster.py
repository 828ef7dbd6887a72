"""Joining or starting Ray, and deciding how many hosts its resources carry."""

import logging
import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Federation
from physfed_ray.runtime.local import first_line, start

CONNECT_S = 5.0


@dataclass(frozen=True)
class Slots:
    """How the hosts are placed.

    Attributes:
        groups: Hosts of each group; the hosts of one group share a node, and several groups may.
        num_cpus: CPUs of each host.
        num_gpus: GPUs of each, may be a fraction.
    """

    groups: tuple[int, ...]
    num_cpus: float = 1
    num_gpus: float = 0

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return sum(self.groups)


def told_address(address: str | None) -> str | None:
    """Return the address of the cluster that the user told to join, None where nobody did.

    That is ``--address``, or ``RAY_ADDRESS``, which Ray sets in the jobs of a cluster and a user
    may set. Ray by itself would also join whatever cluster somebody has started on this machine.

    Raises:
        PhysFedError: The variable holds the address of a dashboard.
    """
    if address and address.strip():
        return address.strip()
    variable = os.environ.get("RAY_ADDRESS", "").strip()
    if variable.startswith(("http://", "https://")):
        raise PhysFedError(
            f"RAY_ADDRESS = {variable} is the address of a dashboard, which `physfed submit` "
            "takes: unset it to run on this machine, or set it to HOST:PORT of the cluster"
        )
    return variable if variable not in ("", "local") else None


def connect(address: str | None, dashboard: bool = False) -> str | None:
    """Join the Ray cluster that the user told, or start one on this machine.

    Does nothing when this process is already connected.

    Args:
        address: As in ``told_address``.
        dashboard: Start Ray's dashboard with the cluster on this machine.

    Returns:
        A sentence where the environment, not the command, said which cluster, or where the
        dashboard is; None otherwise.

    Raises:
        PhysFedError: If there is no cluster at the address, or Ray cannot start here, or a
            dashboard is asked for of a cluster that runs already.
    """
    if ray.is_initialized():
        return None
    told = told_address(address)
    if dashboard and told is not None:
        raise PhysFedError(
            f"--dashboard is for a run on this machine, and this one joins the Ray cluster at "
            f"{told}, which has a dashboard of its own: leave --dashboard out"
        )
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # What a failed call also left in values that nobody reads would follow the error's sentence.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if told is None:
        where = start(dashboard)
        return f"Ray's dashboard is at {where}" if where else None
    check_reachable(told)
    try:
        ray.init(address=told, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise PhysFedError(
            f"no Ray cluster answers at {told} ({first_line(error)}): start one with `ray start "
            "--head`, correct --address, or leave it out to run on this machine"
        ) from error
    return None if address else f"joined the Ray cluster at {told}, as RAY_ADDRESS says"


def check_reachable(address: str | None) -> None:
    """Refuse a host and port where nothing listens; Ray itself would try for minutes.

    Raises:
        PhysFedError: If nothing listens there. Other kinds of address are left to Ray.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise PhysFedError(
            f"no Ray cluster answers at {address} ({error}): start one with `ray start --head`, "
            "correct --address, or leave it out to run on this machine"
        ) from error


def alive_nodes() -> list[Mapping[str, float]]:
    """Return the resources of each node of the cluster that this process has joined."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in found if node["Alive"]]


def part_of(nodes: Sequence[Mapping[str, float]], runs: int) -> list[Mapping[str, float]]:
    """Return the nodes that one of several runs may fill, so that all find room side by side.

    Whole nodes, the smallest, where there are as many as runs; otherwise a part of the smallest.

    Args:
        nodes: Resources of each node.
        runs: How many runs there are.
    """
    resource = "GPU" if any(node.get("GPU") for node in nodes) else "CPU"
    ordered = sorted((n for n in nodes if n.get(resource)), key=lambda n: n[resource])
    if runs <= 1 or not ordered:
        return list(nodes)
    if runs <= len(ordered):
        return ordered[: len(ordered) // runs]
    each = math.ceil(runs / len(ordered))
    return [
        {"CPU": node.get("CPU", 0.0) // each, "GPU": node.get("GPU", 0.0) / each}
        for node in ordered[:1]
    ]


def choose_slots(
    clients: int, federation: Federation, threads: int, nodes: Sequence[Mapping[str, float]]
) -> Slots:
    """Decide the number of hosts and their slices from the cluster's resources.

    With GPUs every host has a slice of one, without them ``threads`` CPUs. ``auto`` takes one
    client a host while there are slots for that, and packs clients otherwise. Where
    ``gpus_per_host`` and ``clients_per_host`` are both named, the machines need not be there yet:
    an autoscaler brings them.

    Args:
        clients: Number of clients.
        federation: Its ``clients_per_host`` and ``gpus_per_host``.
        threads: CPU threads of a client.
        nodes: Resources of each node, ``CPU`` and ``GPU``.

    Raises:
        PhysFedError: If the cluster cannot carry the number of hosts asked for.
    """
    per_host, share = federation.clients_per_host, federation.gpus_per_host
    wanted = None if per_host == "auto" else math.ceil(clients / per_host)
    gpus = [node.get("GPU", 0.0) for node in nodes]
    if share != "auto" and share > 0 and wanted is not None:
        return Slots(_groups_of_gpu(wanted, share), threads, share)
    if share != "auto" and share > max(gpus, default=0.0):
        raise PhysFedError(
            f"federation.gpus_per_host = {share:g}, but no machine of the Ray cluster has so many "
            f"({sum(gpus):g} GPUs in all): add GPU machines, or name federation.clients_per_host "
            "as well, so that an autoscaler knows how many to start"
        )
    on_gpu = any(gpus) if share == "auto" else share > 0
    rooms = rooms_of(nodes, threads, on_gpu, share)
    hosts = min(clients, sum(rooms)) if wanted is None else wanted
    if hosts > sum(rooms):
        raise PhysFedError(
            f"federation.clients_per_host = {per_host} asks for {hosts} hosts of {threads} CPU(s), "
            f"but the Ray cluster has room for {sum(rooms)}: set it to at least "
            f"{math.ceil(clients / sum(rooms))}, or to auto"
        )
    if not on_gpu:
        groups = _spread(hosts, rooms, rooms)
        return Slots(tuple(sorted(filter(None, groups), reverse=True)), threads)
    groups = _spread(hosts, rooms, gpus)
    each = (
        min(_slice(g, group) for g, group in zip(gpus, groups, strict=True) if group)
        if share == "auto"
        else share
    )
    parts = [part for group in groups for part in _groups_of_gpu(group, each)]
    return Slots(tuple(sorted(parts, reverse=True)), threads, each)


def rooms_of(
    nodes: Sequence[Mapping[str, float]], threads: int, on_gpu: bool, share: float | str
) -> list[int]:
    """Return how many hosts each node can carry.

    Raises:
        PhysFedError: None can carry any.
    """
    rooms = [_room(node, threads, on_gpu, share) for node in nodes]
    if sum(rooms) < 1:
        cpus = max(node.get("CPU", 0.0) for node in nodes if node.get("GPU") or not on_gpu)
        raise PhysFedError(
            f"no {'GPU ' * on_gpu}machine of the Ray cluster has more than {cpus:g} CPUs, but a "
            f"client uses training.threads = {threads}: lower it or add CPUs"
        )
    return rooms


def _room(node: Mapping[str, float], threads: int, on_gpu: bool, share: float | str) -> int:
    """Return how many hosts a node can carry."""
    room = int(node.get("CPU", 0.0) // threads)
    if not on_gpu:
        return room
    if share == "auto":
        return room if node.get("GPU") else 0
    gpus = int(node.get("GPU", 0.0))
    per_gpu = int(1 / float(share) + 1e-9)
    return min(room, gpus * per_gpu if per_gpu else int(gpus // float(share)))


def _spread(hosts: int, rooms: Sequence[int], resource: Sequence[float]) -> list[int]:
    """Deal hosts to nodes one by one, each where it gets the most of a resource."""
    groups = [0] * len(rooms)
    for _ in range(hosts):
        free = [n for n, room in enumerate(rooms) if groups[n] < room]
        groups[max(free, key=lambda n: (resource[n] / (groups[n] + 1), -n))] += 1
    return groups


def _slice(gpus: float, hosts: int) -> float:
    """Return the GPUs of each of a node's hosts; a share never spans two GPUs."""
    if hosts <= gpus:
        return float(gpus // hosts)
    return math.floor(10_000 / math.ceil(hosts / gpus)) / 10_000


def _groups_of_gpu(hosts: int, share: float) -> tuple[int, ...]:
    """Return groups of the hosts that share one GPU, so that any GPU machine can take one."""
    size = max(1, int(1 / share + 1e-9))
    full, rest = divmod(hosts, size)
    return (size,) * full + ((rest,) if rest else ())

"""Joining or starting Ray, and deciding how many hosts its resources carry."""

import math
import os
import socket
from dataclasses import dataclass
from typing import Any, Literal

import ray

from physfed_ray.errors import PhysFedError

CONNECT_S = 5.0


@dataclass(frozen=True)
class Slots:
    """How the clients are placed.

    Attributes:
        hosts: Number of hosts.
        num_cpus: CPUs of each.
        num_gpus: GPUs of each, may be a fraction.
    """

    hosts: int
    num_cpus: float
    num_gpus: float


def connect(address: str | None) -> None:
    """Join the Ray cluster at ``address``, or start one on this machine.

    Does nothing when this process is already connected.

    Raises:
        PhysFedError: If there is no cluster at the address.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    check_reachable(address or os.environ.get("RAY_ADDRESS"))
    settings: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address is None and "RAY_ADDRESS" not in os.environ:
            ray.init(address="local", include_dashboard=False, **settings)
        else:
            ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        text = str(error).strip() or error.__class__.__name__
        raise PhysFedError(
            f"no Ray cluster answers at {address or os.environ.get('RAY_ADDRESS')} "
            f"({text.splitlines()[0]}): start one with `ray start --head`, correct --address, "
            "or leave it out to run on this machine"
        ) from error


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


def choose_slots(clients: int, clients_per_host: int | Literal["auto"], threads: int) -> Slots:
    """Decide the number of hosts from the cluster's resources.

    With GPUs every host has a slice of one, without them ``threads`` CPUs. ``auto`` takes one
    client a host while there are slots for that, and packs clients otherwise.

    Args:
        clients: Number of clients.
        clients_per_host: The experiment's ``federation.clients_per_host``.
        threads: CPU threads of a client.

    Raises:
        PhysFedError: If the cluster cannot carry the number of hosts asked for.
    """
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    room = int(cpus // threads)
    if room < 1:
        raise PhysFedError(
            f"the Ray cluster has {cpus:g} CPUs but a client uses training.threads = {threads}: "
            "lower it or add CPUs"
        )
    if clients_per_host == "auto":
        hosts = min(clients, room)
    else:
        hosts = math.ceil(clients / clients_per_host)
        if hosts > room:
            raise PhysFedError(
                f"federation.clients_per_host = {clients_per_host} asks for {hosts} hosts of "
                f"{threads} CPU(s), but the Ray cluster has {cpus:g}: set it to at least "
                f"{math.ceil(clients / room)}, or to auto"
            )
    share = math.floor(gpus / hosts * 10_000) / 10_000 if gpus else 0.0
    if share > 1:
        share = math.floor(share)
    return Slots(hosts, threads, share)

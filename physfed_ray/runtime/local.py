"""Starting Ray on this machine, with no more processes than a run needs."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray._private import parameter
from ray._private.node import Node
from ray._private.parameter import RayParams

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.explain import shown

LONGEST_SOCKET = 107 if sys.platform.startswith("linux") else 103
"""Bytes of a UNIX socket's path."""
SOCKET_BELOW = "/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store.12"
"""The longest name that Ray gives a socket below its temporary folder, with room to spare."""


def start(dashboard: bool = False) -> str | None:
    """Start Ray on this machine.

    Args:
        dashboard: Start its dashboard as well.

    Returns:
        Where the dashboard listens, None without one.

    Raises:
        PhysFedError: Ray's files have no place, or it does not start.
    """
    check_temporary_folder()
    # Processes that Ray starts ahead do not have the settings of our actors, which take their own.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    try:
        with few_processes(dashboard):
            context = ray.init(
                address="local",
                include_dashboard=dashboard,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise PhysFedError(
            f"Ray does not start on this machine ({first_line(error)}): look into its cause "
            "(memory, disk, RAY_TMPDIR), or run with --runtime inline"
        ) from error
    return f"http://{context.dashboard_url}" if dashboard and context.dashboard_url else None


@contextmanager
def few_processes(dashboard: bool = False) -> Iterator[None]:
    """Let ``ray.init`` start neither an autoscaler, nor a reader of logs, nor the dashboard.

    No setting of Ray leaves them out; without a dashboard it still starts the server of one. On one
    machine that scales to nothing they do nothing, and they cost 180 MiB and half of the time until
    Ray has started.

    Args:
        dashboard: Let it start the dashboard nevertheless.
    """
    settings: Any = RayParams  # the type that it declares for one of the two is wrong
    few = partial(settings, no_monitor=True, include_log_monitor=False)
    lean: list[tuple[Any, str, Any]] = [(parameter, "RayParams", few)]
    if not dashboard:
        lean.append((Node, "start_api_server", lambda self, **kwargs: None))
    usual = [(owner, name, getattr(owner, name)) for owner, name, _ in lean]
    try:
        for owner, name, value in lean:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in usual:
            setattr(owner, name, value)


def first_line(error: Exception) -> str:
    """Return what an error says in its first line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_temporary_folder() -> None:
    """Refuse a folder for temporary files whose name leaves no room for Ray's sockets.

    Raises:
        PhysFedError: It is too long, or no folder that can be written to.
    """
    variable = next((v for v in ("RAY_TMPDIR", "TMPDIR") if v in os.environ), None)
    folder = os.environ[variable] if variable else "/tmp"
    room = LONGEST_SOCKET - len(SOCKET_BELOW)
    if len(os.fsencode(folder)) > room:
        raise PhysFedError(
            f"{variable} = {shown(folder)} is too long: below it Ray's sockets would have names of "
            f"more than {LONGEST_SOCKET} bytes, and the system takes no longer ones; set "
            f"RAY_TMPDIR to a folder of at most {room} characters, such as /tmp"
        )
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise PhysFedError(
            f"{variable or 'the folder for temporary files'} = {folder} is no folder that can be "
            "written to, and Ray keeps its files there; set RAY_TMPDIR to one, such as /tmp"
        )

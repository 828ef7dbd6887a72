"""Places for hosts on the machines of the Ray cluster."""

import fcntl
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from physfed_ray.errors import NoRoomError
from physfed_ray.runtime.cluster import Slots

STEP_S = 5.0


@dataclass(frozen=True)
class Placed:
    """Places that are reserved.

    Attributes:
        slots: How many hosts, and what each gets.
        groups: A placement group for each of the slots' groups.
    """

    slots: Slots
    groups: list[PlacementGroup]

    def close(self) -> None:
        """Give the places back, if they are still held."""
        for group in self.groups:
            remove_placement_group(group)


def reserve(
    choose: Callable[[], Slots],
    wait_s: float = 60.0,
    say: Callable[[str], None] = lambda text: None,
) -> Placed:
    """Reserve a place for each group of hosts, each group on one node, the largest groups first.

    While there is no room, the slots are chosen again: Ray takes a few seconds to learn that a
    machine is gone.

    Args:
        choose: Returns the slots for the cluster as it is now.
        wait_s: How long to wait for room.
        say: Tells the user what is waited for.

    Raises:
        NoRoomError: If there is no room for them in time.
    """
    placed = _ask(choose())
    ends = time.monotonic() + wait_s
    told = False
    try:
        while not _all_ready(placed, min(ends, time.monotonic() + STEP_S)):
            if time.monotonic() >= ends:
                raise _no_room(placed.slots, wait_s)
            slots = choose()
            if slots != placed.slots:
                placed.close()
                placed = _ask(slots)
            elif not told:
                told = True
                say(f"waiting for room for {_words(slots)}, at most {wait_s:g} s")
    except BaseException:
        placed.close()
        raise
    return placed


@contextmanager
def taking_turns(lock: Path | None) -> Iterator[None]:
    """Hold a file's lock, which ends with this process; None: nobody else takes places."""
    if lock is None:
        yield
        return
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def node_of(group: PlacementGroup) -> str:
    """Return the id of the node on which a reserved group is."""
    table: dict[str, Any] = placement_group_table(group)
    return str(next(iter(table["bundles_to_node_id"].values())))


def is_ready(group: PlacementGroup, timeout_s: float) -> bool:
    """Wait for a group's place; Ray counts in whole seconds, and says no at once at none."""
    return bool(group.wait(max(1, math.ceil(timeout_s))))


def _ask(slots: Slots) -> Placed:
    bundle = {"CPU": float(slots.num_cpus)}
    if slots.num_gpus:
        bundle["GPU"] = slots.num_gpus
    groups = [placement_group([dict(bundle)] * size, "STRICT_PACK") for size in slots.groups]
    return Placed(slots, groups)


def _all_ready(placed: Placed, ends: float) -> bool:
    return all(is_ready(group, ends - time.monotonic()) for group in placed.groups)


def _words(slots: Slots) -> str:
    return (
        f"{slots.hosts} hosts of {slots.num_cpus:g} CPU(s) and {slots.num_gpus:g} GPU(s), "
        f"{max(slots.groups)} on a machine"
    )


def _no_room(slots: Slots, wait_s: float) -> NoRoomError:
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return NoRoomError(
        f"no room for {_words(slots)}, within {wait_s:g} s: the Ray cluster has "
        f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, part of which another job "
        "may hold; add machines, raise federation.clients_per_host, or wait longer "
        "(federation.wait_s)"
    )

"""Hosts on two nodes of a cluster: who lives where, what travels, and what a lost node leaves."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Federation
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.spec import Spec
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.cluster import Slots, alive_nodes, choose_slots
from physfed_ray.runtime.inline import InlineRuntime
from physfed_ray.runtime.on_ray import RayRuntime
from physfed_ray.runtime.placement import reserve
from tests.conftest import spec_maker
from tests.runtime.two_nodes import SecondNode, in_new_process

MakeSpec = Callable[..., Spec]
CLIENTS = 8


class Observed(RayRuntime):
    """Notes what is sent to the parameter server."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sent: list[list[dict[Any, int]]] = []

    def combine(self, pieces: Sequence[tuple[int, Any]]) -> list[Any]:
        """Note the size of each vector that goes to the server, by node."""
        handles = super().combine(pieces)
        parts = ray.get(handles)
        self.sent.append([{n: v.size for n, v in part.items() if v is not None} for part in parts])
        return handles


@dataclass(frozen=True)
class Seen:
    """What a driver saw of a run on two nodes, the second of which was killed after it.

    Attributes:
        clients: Clients of each host.
        nodes: Node of each host.
        home: Node of the parameter server.
        sent: Sizes of the vectors that the server got, by round and node.
        names: How the actors call themselves.
    """

    slots: Slots
    clients: list[list[int]]
    nodes: list[str]
    home: str
    sent: list[list[dict[Any, int]]]
    vector: np.ndarray
    names: list[str]
    refused: str
    said: list[str]
    survivors: list[list[int]]
    after_the_loss: np.ndarray


def specs(folder: Path) -> tuple[Spec, Spec]:
    """Return the same federation twice: without a run directory, and with one."""
    make = partial(spec_maker(folder), "fedper", clients=CLIENTS, evaluate_every=9)
    return make(), make(run_root=folder / "doomed")


def rounds_on(place: Any, spec: Spec, at: Callable[[Event], None], **settings: Any) -> np.ndarray:
    """Run all rounds and return the shared parameters."""
    directory = None if spec.run_root is None else RunDirectory(spec.run_root)
    Rounds(spec, Federation(**settings), place, directory, at, lambda rows: None).run()
    return np.array(place.server("broadcast")[0])


def drive(spec: Spec, doomed: Spec, nodes: list[Any], second: SecondNode) -> Seen:
    """Run on two nodes beside that of the driver, which has no CPUs."""
    federation = Federation(wait_s=60, replace_s=1)
    slots = choose_slots(CLIENTS, federation, 1, alive_nodes())
    place = Observed(spec, reserve(lambda: slots), federation, "tiny")
    clients = [list(c) for c in place.assignment]
    homes = [place._nodes[host] for host in place.hosts]
    place._server_node = homes[0]  # as if the server were where hosts are
    vector = rounds_on(place, spec, lambda event: None)
    actors = [*place._hosts, place._server]
    names = ray.get([actor.__ray_call__.remote(lambda actor: repr(actor)) for actor in actors])
    place.close()
    with pytest.raises(PhysFedError) as refused:
        reserve(lambda: Slots((2, 3)), 2)
    said, survivors, after = lose_a_node(doomed, slots, federation, nodes[-1], second)
    return Seen(
        slots, clients, homes, homes[0], place.sent, vector, names, str(refused.value), said,
        survivors, after,
    )  # fmt: skip


def lose_a_node(
    spec: Spec, slots: Slots, federation: Federation, doomed: Any, second: SecondNode
) -> tuple[list[str], list[list[int]], np.ndarray]:
    place = RayRuntime(spec, reserve(lambda: slots), federation)
    said: list[str] = []
    far = [host for host, node in place._nodes.items() if node == doomed.node_id]
    pids = ray.get([place._hosts[h].__ray_call__.remote(lambda actor: os.getpid()) for h in far])

    def lose(event: Event) -> None:
        if event["event"] == "message":
            said.append(event["text"])
        if event["event"] == "round" and event["round"] == 1:
            for pid in pids:  # Ray gives them groups of their own
                os.kill(pid, signal.SIGKILL)
            second.kill_added(doomed)

    vector = rounds_on(place, spec, lose)
    survivors = [list(clients) for clients in place.assignment]
    place.close()
    return said, survivors, vector


@pytest.fixture(scope="module")
def seen(two_nodes_seen: Mapping[str, Any]) -> Seen:
    """What the driver saw."""
    found: Seen = two_nodes_seen["placement"]
    return found


@pytest.mark.cluster
def test_hosts_of_a_node_have_neighbouring_clients(seen: Seen) -> None:
    assert seen.slots == Slots((2, 2), 1, 0)
    assert seen.clients == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert seen.nodes[0] == seen.nodes[1] != seen.nodes[2] == seen.nodes[3]


@pytest.mark.cluster
def test_the_server_gets_one_sum_from_another_node(seen: Seen) -> None:
    """On its own node it reads every host's sum from shared memory."""
    size = seen.vector.size
    sums = {0: [{(1, 0): size}, {(1, 1): size}, {(2, 1): size}],
            2: [{(2, 0): size}, {(1, 2): size}, {(1, 3): size}]}  # fmt: skip
    assert seen.sent == [sums[seen.nodes.index(seen.home)]] * 3


@pytest.mark.cluster
def test_the_result_is_that_of_one_process(seen: Seen, tmp_path: Path) -> None:
    spec, _ = specs(tmp_path)
    expected = rounds_on(InlineRuntime(spec), spec, lambda event: None)
    assert np.array_equal(seen.vector, expected)
    assert np.array_equal(seen.after_the_loss, expected)


@pytest.mark.cluster
def test_actors_are_named_by_run_and_clients(seen: Seen) -> None:
    assert seen.names == [
        "tiny/host-0:c1..c2",
        "tiny/host-1:c3..c4",
        "tiny/host-2:c5..c6",
        "tiny/host-3:c7..c8",
        "tiny/parameter-server",
    ]


@pytest.mark.cluster
def test_hosts_that_find_no_room_are_refused_in_time_and_leave_none_taken(seen: Seen) -> None:
    assert seen.refused.startswith(
        "no room for 5 hosts of 1 CPU(s) and 0 GPU(s), 3 on a machine, within 2 s: the Ray cluster "
        "has 4 CPUs and 0 GPUs"
    )
    assert "federation.wait_s" in seen.refused


def test_slots_are_chosen_again_when_the_machines_are_others(ray_session: None) -> None:
    choices = [Slots((99,)), Slots((1,))]
    placed = reserve(lambda: choices.pop(0), 60)
    assert placed.slots == Slots((1,))
    placed.close()


def test_a_wait_for_room_is_told_once(ray_session: None) -> None:
    said: list[str] = []
    with pytest.raises(PhysFedError, match="no room for 99 hosts"):
        reserve(lambda: Slots((99,)), 6, said.append)
    assert said == ["waiting for room for 99 hosts of 1 CPU(s) and 0 GPU(s), 99 on a machine, at "
                    "most 6 s"]  # fmt: skip


@pytest.mark.cluster
def test_a_lost_node_s_clients_move_to_the_other_node(seen: Seen) -> None:
    moved = [text for text in seen.said if "its clients moved to other hosts" in text]
    assert len(moved) == 2, seen.said
    assert sorted(c for clients in seen.survivors for c in clients) == list(range(CLIENTS))
    left = [len(clients) for clients in seen.survivors]
    assert left in ([4, 4, 0, 0], [0, 0, 4, 4])


def share_of_a_gpu(spec: Spec) -> float:
    ray.init(address="local", num_gpus=1, include_dashboard=False, logging_level="ERROR")
    place = RayRuntime(spec, reserve(lambda: Slots((1,), 1, 0.25)))
    look = place._hosts[0].__ray_call__.remote(
        lambda actor: torch.cuda.get_per_process_memory_fraction()
    )
    fraction = float(ray.get(look))
    place.close()
    ray.shutdown()
    return fraction


@pytest.mark.cuda
def test_a_host_may_not_use_more_than_its_share_of_a_gpu(make_spec: MakeSpec) -> None:
    assert in_new_process(share_of_a_gpu, make_spec("fedavg", clients=1)) == pytest.approx(0.25)

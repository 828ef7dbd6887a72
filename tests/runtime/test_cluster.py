"""How many hosts, where, and with which slices, over described machines."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Federation
from physfed_ray.runtime import cluster
from physfed_ray.runtime.cluster import Slots, choose_slots, part_of, told_address

Node = dict[str, float]
HEAD: Node = {"CPU": 4}
FOUR: Node = {"CPU": 16, "GPU": 4}


def slots(clients: int, nodes: Sequence[Node], threads: int = 1, **settings: object) -> Slots:
    return choose_slots(clients, Federation(**settings), threads, nodes)


def place(groups: Sequence[int], wanted: Slots, nodes: Sequence[Node]) -> bool:
    """Say whether every group finds a node, by trying all; a share lies on one GPU alone."""
    if not groups:
        return True
    size, *rest = groups
    for index, node in enumerate(nodes):
        gpus = -(-size // int(1 / wanted.num_gpus + 1e-9)) if 0 < wanted.num_gpus <= 1 else 0
        gpus = gpus or int(size * wanted.num_gpus)
        left = {"CPU": node["CPU"] - size * wanted.num_cpus, "GPU": node.get("GPU", 0) - gpus}
        if min(left.values()) >= 0 and place(
            rest, wanted, [left if i == index else n for i, n in enumerate(nodes)]
        ):
            return True
    return False


@pytest.mark.parametrize(
    ("clients", "nodes", "threads", "groups"),
    [
        (3, [{"CPU": 8}], 1, (3,)),
        (100, [{"CPU": 8}], 1, (8,)),
        (100, [{"CPU": 8}], 3, (2,)),
        (8, [{"CPU": 4}] * 4, 1, (2, 2, 2, 2)),
        (5, [{"CPU": 4}] * 2, 1, (3, 2)),
        (99, [{"CPU": 8}, {"CPU": 2}, {"CPU": 0}], 1, (8, 2)),
        (5, [{"CPU": 8}, {"CPU": 2}], 1, (4, 1)),
        (2, [{"CPU": 2}] * 5, 1, (1, 1)),
        (9, [{"CPU": 1}, {"CPU": 4}], 2, (2,)),
        (9, [{"memory": 1.0}, {"CPU": 2}], 1, (2,)),
    ],
)
def test_hosts_on_cpus_are_spread_over_the_nodes(
    clients: int, nodes: list[Node], threads: int, groups: tuple[int, ...]
) -> None:
    assert slots(clients, nodes, threads) == Slots(groups, threads, 0)


@pytest.mark.parametrize(
    ("clients", "nodes", "groups", "share"),
    [
        (4, [FOUR], (1, 1, 1, 1), 1),
        (2, [FOUR], (1, 1), 2),
        (8, [FOUR], (2, 2, 2, 2), 0.5),
        (5, [FOUR], (2, 2, 1), 0.5),  # a share never spans two GPUs
        (100, [FOUR], (4, 4, 4, 4), 0.25),
        (8, [HEAD, FOUR, FOUR], (1,) * 8, 1),  # none on the head
        (9, [FOUR, FOUR], (2, 2, 2, 2, 1), 0.5),
        (3, [{"CPU": 8, "GPU": 1}], (3,), 0.3333),
        (7, [{"CPU": 2, "GPU": 1}] * 3, (2, 2, 2), 0.5),
    ],
)
def test_hosts_on_gpus_share_them_evenly(
    clients: int, nodes: list[Node], groups: tuple[int, ...], share: float
) -> None:
    found = slots(clients, nodes)
    assert found == Slots(groups, 1, share)
    assert place(found.groups, found, nodes)


MIXED = [
    [HEAD, {"CPU": 64, "GPU": 1}, {"CPU": 8, "GPU": 8}],
    [{"CPU": 3, "GPU": 1}, {"CPU": 4, "GPU": 2}, {"CPU": 2, "GPU": 1}],
    [{"CPU": 1, "GPU": 4}, {"CPU": 16, "GPU": 2}],
    [{"CPU": 12, "GPU": 3}, {"CPU": 5, "GPU": 2}, {"CPU": 9, "GPU": 1}],
]


@pytest.mark.parametrize("nodes", MIXED)
@pytest.mark.parametrize("share", ["auto", 0.5, 0.3, 1])
def test_groups_fit_mixed_machines(nodes: list[Node], share: float | str) -> None:
    for clients in (1, 2, 3, 5, 7, 9, 14, 100):
        for threads in (1, 2):
            found = slots(clients, nodes, threads, gpus_per_host=share)
            assert 1 <= found.hosts <= clients
            assert found.num_gpus > 0
            assert share in ("auto", found.num_gpus)
            assert place(found.groups, found, nodes), (clients, threads, found)


def test_gpus_are_dealt_by_gpus_and_not_by_cpus() -> None:
    assert slots(9, MIXED[0]) == Slots((1,) * 9, 1, 1)


def test_clients_per_host_packs() -> None:
    assert slots(10, [{"CPU": 8}], clients_per_host=4).groups == (3,)
    assert slots(10, [FOUR], clients_per_host=5) == Slots((1, 1), 1, 2)
    assert slots(10, [FOUR], clients_per_host=2) == Slots((2, 2, 1), 1, 0.5)


def test_gpus_can_be_declined() -> None:
    assert slots(9, [FOUR], gpus_per_host=0) == Slots((9,), 1, 0)


@pytest.mark.parametrize("nodes", [[HEAD], [HEAD, FOUR]])
def test_machines_that_an_autoscaler_is_to_bring_need_not_be_there(nodes: list[Node]) -> None:
    def named(clients: int, per_host: int, share: float) -> Slots:
        return slots(clients, nodes, 2, clients_per_host=per_host, gpus_per_host=share)

    assert named(512, 4, 0.25) == Slots((4,) * 32, 2, 0.25)
    assert named(10, 4, 0.5) == Slots((2, 1), 2, 0.5)
    assert named(64, 2, 1) == Slots((1,) * 32, 2, 1)
    assert named(8, 2, 2) == Slots((1,) * 4, 2, 2)
    assert named(10, 1, 0.3) == Slots((3, 3, 3, 1), 2, 0.3)


@pytest.mark.parametrize(
    ("nodes", "threads", "settings", "words"),
    [
        ([HEAD] * 2, 1, {"gpus_per_host": 1}, "no machine .* so many \\(0 GPUs in all\\): add GPU "
         "machines, or name federation.clients_per_host as well"),
        ([{"CPU": 8, "GPU": 1}] * 2, 1, {"gpus_per_host": 2}, "no machine .* \\(2 GPUs in all\\)"),
        ([HEAD] * 2, 8, {}, "no machine .* more than 4 CPUs, .* training.threads = 8"),
        ([{"CPU": 64}, {"CPU": 2, "GPU": 4}], 4, {}, "no GPU machine .* more than 2 CPUs"),
        ([HEAD] * 2, 1, {"clients_per_host": 1}, "asks for 20 hosts of 1 CPU.* room for 8: set it "
         "to at least 3, or to auto"),
        ([{"CPU": 8, "GPU": 4}], 1, {"clients_per_host": 2}, "10 hosts .* room for 8"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_numbers(
    nodes: list[Node], threads: int, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(PhysFedError, match=words):
        slots(20, nodes, threads, **settings)


SMALL_CPU, LARGE_CPU = {"CPU": 4.0}, {"CPU": 16.0}
GPU_NODE = {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "runs", "each"),
    [
        ([LARGE_CPU], 1, [LARGE_CPU]),
        ([LARGE_CPU, SMALL_CPU, {"CPU": 0.0}], 2, [SMALL_CPU]),  # a head without CPUs carries none
        ([SMALL_CPU] * 5, 2, [SMALL_CPU] * 2),
        ([LARGE_CPU], 3, [{"CPU": 5.0, "GPU": 0.0}]),
        ([LARGE_CPU, LARGE_CPU], 3, [{"CPU": 8.0, "GPU": 0.0}]),
        ([GPU_NODE, LARGE_CPU], 1, [GPU_NODE, LARGE_CPU]),
        ([GPU_NODE, LARGE_CPU], 2, [{"CPU": 8.0, "GPU": 1.0}]),
        ([GPU_NODE], 4, [{"CPU": 4.0, "GPU": 0.5}]),
    ],
)
def test_runs_side_by_side_share_the_nodes(nodes: list[Node], runs: int, each: list[Node]) -> None:
    assert part_of(nodes, runs) == each


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 8])
def test_all_runs_find_room_side_by_side(runs: int) -> None:
    """Eight clients of one thread each, on two GPU machines."""
    slots = choose_slots(8, Federation(), 1, part_of([GPU_NODE, GPU_NODE], runs))
    assert runs * slots.hosts * slots.num_gpus <= 4 + 1e-9
    assert runs * slots.hosts * slots.num_cpus <= 32
    assert slots.hosts == (8 if runs <= 4 else 4)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray was asked for, instead of starting it."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **settings: asked.append(settings))
    monkeypatch.setattr(cluster, "check_reachable", lambda address: None)
    return asked


@pytest.mark.parametrize("variable", [None, "", "  ", "local"])
@pytest.mark.parametrize("address", [None, "", " "])
def test_ray_is_started_here_where_nobody_told_of_a_cluster(
    started: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    address: str | None,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert cluster.connect(address) is None
    assert [settings["address"] for settings in started] == ["local"]


def test_the_cluster_that_was_told_is_joined_and_the_environment_is_named(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    said = cluster.connect(None)
    assert said == "joined the Ray cluster at 10.0.0.1:6379, as RAY_ADDRESS says"
    assert cluster.connect("10.0.0.2:6379") is None
    assert cluster.connect("auto") is None
    assert [settings["address"] for settings in started] == [
        "10.0.0.1:6379", "10.0.0.2:6379", "auto",
    ]  # fmt: skip


def test_the_address_of_a_dashboard_is_no_cluster_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(PhysFedError, match=r"address of a dashboard.*unset it"):
        told_address(None)
    assert told_address("auto") == "auto"


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_is_too_long_for_sockets_is_refused_before_ray_starts(
    started: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for other in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(other, raising=False)
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    monkeypatch.setenv(variable, str(deep))
    with pytest.raises(PhysFedError, match=f"{variable} = .* is too long.*set RAY_TMPDIR"):
        cluster.connect(None)
    monkeypatch.setenv(variable, "/nowhere")
    with pytest.raises(PhysFedError, match=f"{variable} = /nowhere is no folder"):
        cluster.connect(None)
    assert not started


def test_what_ray_says_when_it_does_not_start_is_one_line(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**settings: Any) -> None:
        raise OSError("AF_UNIX path length cannot exceed 107 bytes\nmore")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(PhysFedError, match=r"does not start.*\(AF_UNIX .* bytes\).*inline"):
        cluster.connect(None)


def test_a_call_of_ray_joins_nothing_by_itself() -> None:
    """Ray would look for any cluster of this machine, and else start one."""
    script = (
        "import physfed_ray.runtime.cluster, ray\n"
        "try: ray.get(ray.put(1))\n"
        "except Exception as error: print(type(error).__name__, ray.is_initialized())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.split() == ["RaySystemError", "False"]

"""Private states: small, bit-equal whenever they come back, and bounded in memory."""

import math
import random
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from physfed_ray.experiment import Training
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.client.optimizer import FlatOptimizer
from physfed_ray.federation.client.private import Persistence, PrivateStates, State
from physfed_ray.federation.flat import FlatState
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.given import Task
from physfed_ray.methods.registry import get_method
from physfed_ray.models.registry import make_backbone

MakeSpec = Callable[..., Spec]
STATE_BYTES = 6 * 4
"""Of ``state``."""


class Swapped:
    """A network of a shared and a private layer, and the states of its clients."""

    def __init__(
        self, persistence: Persistence = "persist_private", budget_bytes: float = 1e9
    ) -> None:
        torch.manual_seed(0)
        self.network = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(4, 2)})
        self.shared = FlatState(self.network, ["a"])
        self.private = FlatState(self.network, ["b"])
        self.optimizer = FlatOptimizer(Training(lr=0.1), (self.shared, self.private), {})
        self.states = PrivateStates(
            self.shared, self.private, self.optimizer, persistence, budget_bytes
        )

    def train(self, steps: int = 3) -> None:
        """Make steps on random gradients."""
        for _ in range(steps):
            self.shared.gradient.normal_()
            self.private.gradient.normal_()
            self.optimizer.step()


def state(value: float) -> dict[str, Tensor]:
    return {"b.weight": torch.full((2, 2), float(value)), "b.bias": torch.full((2,), float(value))}


def copy(of: State) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in of.items()}


def equal(one: State | None, other: State | None) -> bool:
    assert one is not None
    assert other is not None
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def held(states: PrivateStates) -> list[int]:
    total = sum(t.nbytes for _, s in states._held.values() for t in s.values())
    assert total == states._held_bytes
    return list(states._held)


def test_the_least_recently_used_leave_memory_and_all_come_back() -> None:
    states = Swapped(budget_bytes=2 * STATE_BYTES).states
    for client in range(3):
        states.keep(client, 1, state(client))
    assert held(states) == [1, 2]
    assert states.get(1, 1) is not None
    states.keep(3, 1, state(3))
    assert held(states) == [1, 3]
    for client in (2, 0, 1, 3, 0):
        assert equal(states.get(client, 1), state(client))
        assert held(states)[-1] == client
        assert len(held(states)) == 2


@pytest.mark.parametrize("budget", [0, STATE_BYTES - 1, 3 * STATE_BYTES, 1e9])
def test_states_come_back_whatever_fits_in_memory(budget: float) -> None:
    states = Swapped(budget_bytes=budget).states
    expected: dict[int, tuple[int, dict[str, Tensor]]] = {}
    rng = random.Random(1)
    for number in range(1, 200):
        client = rng.randrange(8)
        if rng.random() < 0.5:
            extra = {"longer": torch.rand(rng.randrange(50))}  # also grows and shrinks in the file
            expected[client] = number, state(rng.random()) | extra
            states.keep(client, number, copy(expected[client][1]))
        elif client in expected:
            when, value = expected[client]
            assert equal(states.get(client, when), value)
            assert states.get(client, when - 1) is None
        held(states)
        assert states._held_bytes <= budget


def test_the_file_grows_with_the_clients_and_not_with_the_rounds() -> None:
    states = Swapped(budget_bytes=0).states
    ends = []
    for number in range(1, 6):
        for client in range(10):
            states.keep(client, number, state(client + number))
            assert held(states) == []
        ends.append(states._file._end)
    assert len(set(ends)) == 1
    assert ends[0] < 10 * 1000


def test_a_round_that_is_repeated_may_end_in_another_state() -> None:
    """A checkpoint's state comes from the run directory; the host's own file has a newer one."""
    states = Swapped(budget_bytes=STATE_BYTES).states
    states.keep(0, 5, state(1))
    states.keep(1, 5, state(9))  # client 0 goes to the file
    assert states.get(0, 3) is None
    states.keep(0, 3, state(0))  # read from the checkpoint
    states.keep(0, 5, state(2))  # trained again, with another result
    states.keep(1, 5, state(9))
    assert equal(states.get(0, 5), state(2))


@pytest.mark.parametrize("budget", [0, 1e9])
@pytest.mark.parametrize("persistence", ["persist_private", "persist_all", "fresh"])
def test_training_goes_on_where_a_client_left_it(persistence: Persistence, budget: float) -> None:
    """Two clients in turn train as each would alone; persist_all keeps the shared moments."""
    alone, turns = Swapped(persistence), Swapped(persistence, budget)
    start = alone.shared.vector.clone()

    def round_of(swapped: Swapped, client: int, number: int, seed: int) -> dict[str, Tensor]:
        swapped.shared.vector.copy_(start)
        swapped.states.swap_in(swapped.states.get(client, number - 1))
        torch.manual_seed(seed)
        swapped.train()
        left = copy(swapped.states.swap_out(client, number))
        left["shared"] = swapped.shared.vector.clone()
        return left

    for number in range(1, 4):
        mine = round_of(alone, 0, number, number)
        assert equal(round_of(turns, 0, number, number), mine)
        round_of(turns, 1, number, 100 + number)


def test_what_belongs_to_the_state() -> None:
    expected = {"fresh": set(), "persist_private": {"b"}, "persist_all": {"a", "b"}}
    for persistence, children in expected.items():
        swapped = Swapped(persistence)  # type: ignore[arg-type]
        swapped.states.swap_in(None)
        swapped.train()
        names = set(swapped.states.swap_out(0, 1))
        moments = {
            f"optimizer.{child}.{name}"
            for child in children
            for name in ("step", "exp_avg", "exp_avg_sq")
        }
        assert names == {"b.weight", "b.bias"} | moments


def test_a_kept_state_is_a_copy() -> None:
    swapped = Swapped()
    swapped.states.swap_in(None)
    swapped.train()
    kept = copy(swapped.states.swap_out(0, 1))
    swapped.train()
    assert equal(swapped.states.get(0, 1), kept)
    swapped.states.swap_in(swapped.states.get(0, 1))
    swapped.train()
    assert equal(swapped.states.get(0, 1), kept)


def test_a_new_client_starts_at_the_beginning_without_moments() -> None:
    swapped = Swapped()
    start = swapped.private.vector.clone()
    swapped.train()
    swapped.states.swap_in(None)
    assert torch.equal(swapped.private.vector, start)
    assert not swapped.optimizer.state


FULL_DISK = """
import resource, sys, tempfile
from physfed_ray.errors import PhysFedError
from tests.federation.client.test_private import Swapped, state
tempfile.tempdir = None  # not looked for yet, as in a new process
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
states = Swapped(budget_bytes=0).states
try:
    for client in range(100):
        states.keep(client, 1, state(client))
except PhysFedError as error:
    print(client, error)
"""


@pytest.mark.parametrize(
    ("limit", "reason"), [(1000, "File too large"), (0, "No usable temporary directory found in")]
)
def test_a_disk_that_refuses_is_one_sentence(limit: int, reason: str) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    client, _, sentence = done.stdout.strip().partition(" ")
    assert (int(client) > 0) == (limit > 0)
    assert sentence.startswith("private states do not fit on the disk under /")
    assert f"({reason}" in sentence
    assert "federation.private_memory_mb" in sentence


def test_a_client_of_scan_physfed_keeps_its_decoder_with_its_moments_alone(
    make_spec: MakeSpec,
) -> None:
    spec = make_spec("scan_physfed", clients=2)
    decoder = spec.method.build(spec.seed).get_submodule("decoder")
    count = sum(p.numel() for p in decoder.parameters())
    host = Host(spec)
    jobs = (ClientTurn(0, 0),)
    host.train(Order(1, 1e-3, (0,), jobs, (0,)), *ParameterServer(spec).broadcast())
    kept = host.network.states.get(0, 1)
    assert kept is not None
    moments = {name: tensor for name, tensor in kept.items() if name.startswith("optimizer.")}
    shapes = {f"decoder.{name}": p.shape for name, p in decoder.named_parameters()}
    assert {n: t.shape for n, t in kept.items() if n not in moments} == shapes
    assert {n: t.numel() for n, t in moments.items()} == {
        "optimizer.decoder.step": 1,
        "optimizer.decoder.exp_avg": count,
        "optimizer.decoder.exp_avg_sq": count,
    }
    assert all(tensor.dtype == torch.float32 for tensor in kept.values())


def test_at_full_width_a_client_s_private_state_is_10_6_mib() -> None:
    kind = get_method("scan_physfed")
    task = Task(256, 8, 0.5, 0.2, 1, 384, (0.0,) * 384, (1.0,) * 384, make_backbone(channels=96))
    with torch.device("meta"):
        method = kind(kind.Settings(), task)
        private = {
            name: make() for name, make in method.children().items() if name not in method.shared
        }
    assert list(private) == ["decoder"]
    numbers = sum(math.prod(p.shape) for p in private["decoder"].parameters())
    assert not list(private["decoder"].buffers())
    assert 3 * 4 * numbers / 2**20 == pytest.approx(10.6, abs=0.05)

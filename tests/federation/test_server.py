"""The parameter server: aggregation on three numbers, refusals, and what it remembers."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.schedule import weight_of_staleness
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import RoundInput

MakeSpec = Callable[..., Spec]
SLOPES = torch.tensor([[1.0, -2.0, 4.0], [-1.0, -1.0, 2.0], [8.0, 1.0, -1.0]])


class ThreeNumbers(Method):
    """A network of three shared numbers; the loss of each client is linear in them.

    The first step of Adam then goes by the learning rate against the sign of the slope.
    """

    name = "three_numbers"
    shared = ("numbers",)

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the numbers, three zeros."""
        return {"numbers": nn.ParameterList([torch.zeros(3)]).requires_grad_}

    def begin(self, network: nn.Module, round_input: RoundInput) -> Tensor:
        """Return the client's slopes."""
        return SLOPES[round_input.client.index]

    def loss(
        self, network: nn.Module, batch: Batch, state: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the linear loss."""
        return (network.get_parameter("numbers.0") * state).sum(), {}


@pytest.fixture
def three(make_spec: MakeSpec) -> Callable[..., Spec]:
    """Return a factory of federations of three clients with three numbers, one step a turn."""

    def make(weights: str = "uniform", **more: Any) -> Spec:
        spec = make_spec("fedavg", unseen=0, batch_size=8, **more)
        settings = MethodSettings.model_validate({"weights": weights})
        return replace(spec, method=ThreeNumbers(settings, spec.method.task))

    return make


def put(server: ParameterServer, values: list[float]) -> None:
    """Let the server's vector be these numbers."""
    vector, _ = server.broadcast()
    vector[:] = values


def numbers(server: ParameterServer) -> list[float]:
    return [float(value) for value in server.broadcast()[0]]


def test_differences_of_other_bases_are_added_by_staleness(three: Callable[..., Spec]) -> None:
    """FedBuff (Nguyen et al. 2022, alg. 1): w + 1/K sum_i (1 + s_i)^-a delta_i."""
    spec = three()
    server = ParameterServer(spec)
    put(server, [1.0, 2.0, 3.0])
    new, old = (np.array(v, np.float32) for v in ([1, 2, 3], [1024, -512, 256]))
    jobs = (ClientTurn(0, 0, base=4), ClientTurn(1, 0, base=1, factor=weight_of_staleness(3, 0.5)))
    order = Order(5, 0.5, (0, 1, 2), jobs, (1, 4), difference=True)
    results, pieces = Host(spec).train(order, old, {}, new, {})
    assert [result.steps for result in results] == [1, 1]
    server.aggregate(5, [0, 1], {}, [], True, pieces)
    deltas = np.array([[-0.5, 0.5, -0.5], [0.5, 0.5, -0.5]])  # 0.5 against the slope's sign
    np.testing.assert_allclose(numbers(server), new + (deltas[0] + 0.5 * deltas[1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(numbers(server), [0.875, 2.375, 2.625], rtol=1e-6)


def test_differences_of_one_base_are_the_average(three: Callable[..., Spec]) -> None:
    for weights in ("uniform", "samples"):
        means = []
        for difference in (False, True):
            spec = three(weights)
            server = ParameterServer(spec)
            put(server, [1.0, 2.0, 3.0])
            jobs = tuple(ClientTurn(client, 0) for client in range(3))
            order = Order(1, 0.5, (0, 1, 2), jobs, (0,), difference)
            _, pieces = Host(spec).train(order, server.broadcast()[0].copy(), {})
            server.aggregate(1, [0, 1, 2], {}, [], difference, pieces)
            means.append(numbers(server))
        share = np.array([3, 4, 3]) / 10 if weights == "samples" else np.ones(3) / 3
        deltas = -0.5 * np.sign(SLOPES.numpy().astype(float))
        np.testing.assert_allclose(means[0], [1, 2, 3] + share @ deltas, rtol=1e-6)
        np.testing.assert_allclose(means[1], means[0], rtol=1e-6)


def piece(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_sum_of_pieces_is_divided_by_those_who_took_part(three: Callable[..., Spec]) -> None:
    server = ParameterServer(three())
    pieces = {(1, 0): piece(3, 6, 9)}, {(0, 2): piece(3, 0, 3)}
    server.aggregate(1, [0, 1, 2], {}, [], False, *pieces)
    assert numbers(server) == [2, 2, 4]
    server.aggregate(2, [0, 2], {}, [1], False, {(0, 0): piece(1, 2, 3), (0, 2): piece(3, 0, 3)})
    assert numbers(server) == [2, 1, 3]
    server.aggregate(3, [0], {}, [1, 2], True, {(0, 0): piece(1, -1, 0.5)})
    assert numbers(server) == [3, 0, 3.5]
    server.aggregate(4, [], {}, [0, 1, 2], False)
    assert numbers(server) == [3, 0, 3.5]


@pytest.mark.parametrize(
    ("node", "size", "names"), [((0, 2), 4, "c3"), ((1, 0), 1, "c1, c2"), ((0, 1), 0, "c2")]
)
def test_an_update_of_the_wrong_size_is_named_and_changes_nothing(
    three: Callable[..., Spec], node: tuple[int, int], size: int, names: str
) -> None:
    server = ParameterServer(three())
    put(server, [1.0, 2.0, 3.0])
    good = {(1, 0): piece(3, 6, 9), (0, 2): piece(0, 0, 0)}
    with pytest.raises(
        PhysFedError, match=rf"update of {names} has {size} .*'plain' makes 3 .*version"
    ):
        server.aggregate(1, [0, 1, 2], {}, [], False, {node: np.zeros(size, np.float32)})
    assert numbers(server) == [1, 2, 3]
    server.aggregate(1, [0, 1, 2], {}, [], False, good)
    assert numbers(server) == [1, 2, 3]


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_average_that_is_not_finite_changes_nothing(
    three: Callable[..., Spec], value: float, difference: bool
) -> None:
    server = ParameterServer(three())
    put(server, [1.0, 2.0, 3.0])
    bad, good = ({(1, 0): piece(3, v, 3), (0, 2): None} for v in (value, 3))
    with pytest.raises(PhysFedError, match="round 7: the aggregated parameters are not finite"):
        server.aggregate(7, [0, 1, 2], {}, [], difference, bad)
    assert numbers(server) == [1, 2, 3]
    server.aggregate(7, [0, 1, 2], {}, [], difference, good)
    assert numbers(server) == ([2, 3, 4] if difference else [1, 1, 1])


def change(server: ParameterServer, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Add a round's number to all parameters; return what the server then broadcasts."""
    clients = range(3)
    delta = np.full_like(server.broadcast()[0], number / 100)
    server.aggregate(number, clients, {}, clients[1:], True, {(0, 0): delta * 3})
    vector, extras = server.broadcast()
    return vector.copy(), {name: array.copy() for name, array in extras.items()}


def same(
    one: tuple[np.ndarray, Mapping[str, np.ndarray]],
    other: tuple[np.ndarray, Mapping[str, np.ndarray]],
) -> bool:
    return (
        np.array_equal(one[0], other[0])
        and one[1].keys() == other[1].keys()
        and all(np.array_equal(one[1][name], other[1][name]) for name in one[1])
    )


@pytest.mark.parametrize("method", ["fedavg", "scan_physfed"])
def test_an_earlier_vector_is_recalled_as_it_was_broadcast(
    make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    server = ParameterServer(make_spec(method, run_root=tmp_path / "run"))
    vector, extras = server.broadcast()
    sent = {0: (vector.copy(), dict(extras))}
    for number in (1, 2, 3):
        sent[number] = change(server, number)
        if number != 2:
            server.save(number)
    server.save_base(2, *sent[2])  # later, with the checkpoint of round 3
    assert len({v.tobytes() for v, _ in sent.values()}) == 4
    assert ("codes" in sent[1][1]) == (method == "scan_physfed")
    for number, was in sent.items():
        assert same(server.recall(number), was)
        assert same(server.broadcast(), sent[3])
    for number in (2, 0, 3):
        server.restore(number)
        assert same(server.broadcast(), sent[number])

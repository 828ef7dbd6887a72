"""FedKD: the losses of student and teacher, what is compressed, and the bytes that it saves."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.flat import FlatState, private_parts
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method
from physfed_ray.methods.fedkd import FedKD, FedKDSettings
from physfed_ray.methods.given import ClientInfo, RoundInput
from physfed_ray.models.low_rank import RAW
from physfed_ray.objectives.registry import make_objective
from tests.federation.test_rounds import InterruptedRunError, Run, interrupt

MakeMethod = Callable[..., Method]
MakeBatch = Callable[..., Batch]
MakeSpec = Callable[..., Spec]


@pytest.fixture
def spec(make_spec: MakeSpec, tmp_path: Path) -> Spec:
    """Return a federation of three clients whose student is wide enough to be compressed."""
    narrow = make_spec("fedkd", unseen=0, run_root=tmp_path / "run")
    task = replace(
        narrow.method.task,
        backbone=narrow.method.task.backbone.with_channels(8),
    )
    settings = FedKDSettings(energy_start=0.6, energy_end=0.9)
    return replace(narrow, method=FedKD(settings, task))


def given(number: int = 1) -> RoundInput:
    return RoundInput(
        number, ClientInfo(0, "c1", PRESETS["paper-1"], 3), np.zeros(0, np.float32), {}
    )


def outputs(method: Method, network: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """Return y_s, y_t, W H_s and H_t."""
    f, skips = network.encoder(batch.low)
    f_t, skips_t = network.teacher_encoder(batch.low)
    return (
        network.decoder(f, skips),
        network.teacher_decoder(f_t, skips_t),
        network.hidden_map(f),
        f_t,
    )


def mse(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).square().mean()


def test_the_loss_is_that_of_the_paper_in_units_of_the_inputs_error(
    make_method: MakeMethod, make_batch: MakeBatch, shake: Callable
) -> None:
    method, batch = make_method("fedkd"), make_batch()
    network = shake(method.build(1))
    loss, parts = method.loss(network, batch, method.begin(network, given()))
    y_s, y_t, mapped, f_t = outputs(method, network, batch)
    unit = mse(batch.low, batch.full)
    task_s, task_t = mse(y_s, batch.full) / unit, mse(y_t, batch.full) / unit
    distillation = mse(y_s, y_t) / unit / (task_s + task_t)
    hidden = mse(mapped, f_t) / f_t.double().square().mean() / (task_s + task_t)
    expected = {
        "mse": task_s,
        "teacher_mse": task_t,
        "distillation": distillation,
        "hidden": hidden,
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        assert float(parts[name]) == pytest.approx(float(value * unit), rel=1e-5)
    assert float(loss) == pytest.approx(float(unit * sum(expected.values())), rel=1e-5)


def test_another_objective_counts_in_its_own_unit(
    make_task: Callable, make_batch: MakeBatch, shake: Callable
) -> None:
    task, batch = replace(make_task(), objective=make_objective("l1")), make_batch()
    method = FedKD(FedKD.Settings(), task)
    network = shake(method.build(1))
    loss, parts = method.loss(network, batch, method.begin(network, given()))
    y_s, y_t, mapped, f_t = outputs(method, network, batch)
    unit, task_s, task_t = ((y - batch.full).abs().mean() for y in (batch.low, y_s, y_t))
    weight = unit / (task_s + task_t)
    expected = {
        "l1": task_s,
        "teacher_l1": task_t,
        "distillation": weight * unit * mse(y_s, y_t) / mse(batch.low, batch.full),
        "hidden": weight * unit * mse(mapped, f_t) / f_t.double().square().mean(),
    }
    assert list(parts) == list(expected)
    for name, value in expected.items():
        assert float(parts[name]) == pytest.approx(float(value), rel=1e-5)
    assert float(loss) == pytest.approx(float(sum(expected.values())), rel=1e-5)


def test_each_model_learns_from_its_own_loss_alone(
    make_method: MakeMethod, make_batch: MakeBatch, shake: Callable
) -> None:
    """The partner, and the weight 1 / (sum of the task losses), are constants (eq. 3 to 7)."""
    method, batch = make_method("fedkd"), make_batch()
    network = shake(method.build(1))
    method.loss(network, batch, method.begin(network, given()))[0].backward()
    y_s, y_t, mapped, f_t = outputs(method, network, batch)
    unit = mse(batch.low, batch.full)
    weight = (unit / (mse(y_s, batch.full) + mse(y_t, batch.full))).detach()
    scale = unit / f_t.detach().double().square().mean()
    own = {
        "student": mse(y_s, batch.full)
        + weight * (mse(y_s, y_t.detach()) + scale * mse(mapped, f_t.detach())),
        "teacher": mse(y_t, batch.full)
        + weight * (mse(y_t, y_s.detach()) + scale * mse(mapped.detach(), f_t)),
    }
    children = {
        "student": ("encoder", "decoder", "hidden_map"),
        "teacher": ("teacher_encoder", "teacher_decoder"),
    }
    for model, loss in own.items():
        parameters = [p for name in children[model] for p in getattr(network, name).parameters()]
        for p, expected in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(p.grad, expected, rtol=1e-4, atol=1e-6)


def test_nothing_to_remove_is_not_divided_by_zero(
    make_method: MakeMethod, make_batch: MakeBatch
) -> None:
    method = make_method("fedkd")
    network, batch = method.build(1), make_batch()
    loss, _ = method.loss(network, replace(batch, full=batch.low), method.begin(network, given()))
    loss.backward()
    assert float(loss) == 0.0
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


def test_the_student_alone_is_evaluated(make_method: MakeMethod, make_batch: MakeBatch) -> None:
    method = make_method("fedkd")
    network = method.build(1)
    assert set(private_parts(network, method.shared)) == set(method.training_only)
    for name in method.training_only:
        for parameter in network.get_submodule(name).parameters():
            parameter.data.fill_(math.nan)
    assert method.denoise(network, make_batch()).isfinite().all()


def test_the_teacher_may_be_wider(
    make_method: MakeMethod, make_batch: MakeBatch, shake: Callable
) -> None:
    equal, wider = make_method("fedkd"), make_method("fedkd", teacher_channels=6)
    networks = [shake(method.build(1)) for method in (equal, wider)]
    sizes = [
        {n: sum(p.numel() for p in c.parameters()) for n, c in network.named_children()}
        for network in networks
    ]
    assert sizes[0]["teacher_encoder"] == sizes[0]["encoder"] == sizes[1]["encoder"]
    assert sizes[1]["teacher_encoder"] > sizes[0]["teacher_encoder"]
    loss, _ = wider.loss(networks[1], make_batch(), wider.begin(networks[1], given()))
    loss.backward()
    assert all(bool(p.grad.any()) for p in networks[1].parameters())


def test_the_threshold_grows_to_the_last_round(make_task: Callable) -> None:
    method = FedKD(FedKDSettings(), replace(make_task(), rounds=200))
    assert [method.energy(n) for n in (100, 200, 300)] == pytest.approx([0.965, 0.98, 0.98])
    assert method.energy(1) == pytest.approx(0.95 + 0.03 / 200)


def test_finish_keeps_enough_of_each_update(make_task: Callable, shake: Callable) -> None:
    task = replace(make_task(), rounds=10)
    task = replace(task, backbone=task.backbone.with_channels(12))
    method = FedKD(FedKDSettings(), task)
    network = method.build(1)
    state = method.begin(network, given())
    start = {n: p.detach().clone() for n, p in network.named_parameters()}
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):  # updates of rank 1 and some noise
            rng = torch.Generator().manual_seed(i)
            rows = torch.randn(len(parameter), *[1] * (parameter.ndim - 1), generator=rng)
            parameter.add_(rows * torch.randn(parameter.shape[1:], generator=rng), alpha=0.01)
            parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=0.003)
    trained = {n: p.detach().clone() for n, p in network.named_parameters()}
    upload = method.finish(network, given(10), state, 3)
    ranks = dict(zip(state, upload["ranks"].tolist(), strict=True))
    assert any(rank > 0 for rank in ranks.values())
    for name, parameter in network.named_parameters():
        sent, whole = (p.detach() - start[name] for p in (parameter, trained[name]))
        if ranks.get(name, RAW) == RAW:  # a bias, the teacher's, or not worth it
            assert torch.equal(parameter, trained[name])
            continue
        assert np.linalg.matrix_rank(sent.flatten(1).double(), tol=1e-5) == ranks[name]
        kept = float(sent.square().sum() / whole.square().sum())
        assert 0.98 - 1e-4 <= kept < 1
        assert not torch.equal(parameter, trained[name])
    assert set(ranks) == {
        n for n, p in network.named_parameters() if p.ndim > 1 and n.split(".")[0] in method.shared
    }


def compressed_bytes(spec: Spec, vector: np.ndarray, before: np.ndarray) -> int:
    """Count what a vector is sent as, from the ranks of its differences to another one."""
    state = FlatState(spec.method.build(1), spec.method.shared)
    pairs = zip(*(state.named(torch.from_numpy(v)).values() for v in (vector, before)), strict=True)
    total = 0
    for new, old in pairs:
        if new.ndim == 1:
            total += 4 * new.numel()
            continue
        update = (new - old).double().flatten(1).numpy()
        rank = int(np.linalg.matrix_rank(update, tol=1e-5))
        total += 4 + 4 * min(update.size, rank * (sum(update.shape) + 1))  # 4 for the rank
    return total


def test_the_metrics_have_the_bytes_of_what_was_sent(spec: Spec) -> None:
    """Counted from the vectors themselves: each client's update, and the server's mean."""
    server = ParameterServer(spec)
    start = server.broadcast()[0].copy()
    order = Order(1, 1e-3, (0, 1, 2), (), (0,), save=False)
    sent = []
    for client in range(3):
        alone = replace(order, clients=(client,), turns=(ClientTurn(client, 0),))
        results, pieces = Host(spec).train(alone, start, {})
        (vector,) = pieces.values()
        sent.append(compressed_bytes(spec, vector, start))
        assert results[0].uploads.keys() == {"ranks"}
    run = Run(replace(spec, training=spec.training.model_copy(update={"rounds": 1}))).go()
    received = compressed_bytes(spec, run.vector, start)
    assert run.row("bytes_up") == {1: sum(sent)}
    assert run.row("bytes_down") == {1: 3 * start.nbytes}  # the first student goes whole

    second = Run(replace(spec, run_root=None)).go()
    assert second.row("bytes_up")[1] == sum(sent)
    assert second.row("bytes_down")[2] == 3 * received
    uncompressed = 3 * start.nbytes
    assert all(n < 0.8 * uncompressed for n in second.row("bytes_up").values())
    assert all(second.row("bytes_down")[n] < 0.8 * uncompressed for n in (2, 3))


def test_no_more_is_counted_than_the_student_has(make_method: MakeMethod) -> None:
    method = make_method("fedkd")  # 4 channels: 10 matrices
    shared = 4 * sum(
        p.numel() for n in method.shared for p in method.build(1).get_submodule(n).parameters()
    )
    raw = np.full(10, RAW, np.int32)
    assert method.bytes_up(shared, {"ranks": raw}) == shared
    assert method.bytes_down(shared, {"ranks": raw}) == shared
    assert method.bytes_down(shared, {}) == shared
    ranks = raw.copy()
    ranks[1] = 2  # of 4 x 100
    assert method.bytes_up(shared, {"ranks": ranks}) == shared + 40 - 4 * (400 - 2 * 105)


def test_the_teacher_stays_with_its_client(spec: Spec) -> None:
    run = Run(spec).go()
    root = Path(spec.run_root or "")
    last = root / "checkpoints" / "round-0003"
    shared = load_file(last / "server.safetensors")
    assert {name.split(".")[0] for name in shared} == {"encoder", "decoder"}
    assert run.runtime.server("broadcast")[1].keys() == {"ranks"}
    assert not run.runtime.server("serves_locally")
    teachers = [load_file(last / "clients" / f"c{i}.safetensors") for i in (1, 2, 3)]
    name = "teacher_encoder.layers.0.weight"
    assert len({teacher[name].tobytes() for teacher in teachers}) == 3
    assert not any(key.startswith(("encoder", "decoder")) for key in teachers[0])


def test_resuming_changes_neither_bits_nor_bytes(spec: Spec, tmp_path: Path) -> None:
    calm = Run(spec).go()
    stopped = replace(spec, run_root=str(tmp_path / "stopped"))
    with pytest.raises(InterruptedRunError):
        Run(stopped, at=interrupt(2)).go()
    rest = Run(stopped, 2).go()
    assert rest.done == [2, 3]
    assert np.array_equal(rest.vector, calm.vector)
    assert rest.rows == calm.rows


def test_a_mean_that_is_not_finite_is_refused_as_for_any_method(spec: Spec) -> None:
    server = ParameterServer(spec)
    vector = server.broadcast()[0].copy()
    upload = {"ranks": np.full(10, RAW, np.int32)}
    with pytest.raises(PhysFedError, match="not finite"):
        server.aggregate(
            1, [0], {"c1": upload}, [1, 2], False, {(0, 0): np.full_like(vector, np.inf)}
        )
    assert np.array_equal(server.broadcast()[0], vector)


def test_differences_from_older_bases_are_compressed_too(spec: Spec) -> None:
    """The mean is then the present vector and the sum of updates, which the server compresses."""
    server = ParameterServer(spec)
    start = server.broadcast()[0].copy()
    older = start + np.random.default_rng(1).normal(0, 0.01, start.size).astype(np.float32)
    order = Order(1, 1e-3, (0, 1, 2), (ClientTurn(0, 0),), (0,), difference=True, save=False)
    results, pieces = Host(spec).train(order, older, {})
    server.aggregate(1, [0], {"c1": results[0].uploads}, [], True, pieces)
    assert compressed_bytes(spec, server.broadcast()[0], start) == server.sizes()[1]
    assert server.sizes()[1] < server.sizes()[0]

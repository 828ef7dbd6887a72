"""What must hold for every registered objective, and one from another package."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.client.training import build_network
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.objectives.registry import OBJECTIVES, make_objective
from physfed_ray.runtime.run import run_experiment
from tests.outside import install

every_objective = pytest.mark.parametrize("name", OBJECTIVES)
AT_EQUALITY = {"mse": 0.0, "l1": 0.0, "charbonnier": 1e-3, "ssim_mixed": 0.0, "leda": 0.0}

THEIRS = """
import torch
from pydantic import Field
from torch import nn
from physfed_ray.objectives.base import Objective, ObjectiveSettings

MADE = []


class Settings(ObjectiveSettings):
    share: float = Field(0.5, ge=0, le=1, description="weight of the features")


class Ours(Objective):
    name = "features"
    title = "features of a frozen network"
    paper = "theirs"
    Settings = Settings

    def networks(self):
        def make():
            MADE.append(self.name)
            return nn.Conv2d(1, 3, 3)
        return {"look": make}

    def __call__(self, denoised, batch):
        look, images = self.frozen()["look"], (denoised.float(), batch.full.float())
        seen = [look(image) for image in images]
        features = (seen[0] - seen[1]).square().mean()
        l1 = (images[0] - images[1]).abs().mean()
        share = self.settings.share
        return share * features + (1 - share) * l1, {"features": features, "l1": l1}
"""

EXPERIMENT = """
name: theirs
reports: {encoder: hashed}
data:
  source: {phantom: {patients: 4, slices: 1}}
  image_size: 32
  test_patients: 1
  validation_patients: 1
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
backbone: {channels: 2}
method: {name: fedper}
training: {rounds: 1, batch_size: 2, objective: {name: features, share: 0.25}}
"""


@every_objective
def test_says_what_it_is(name: str) -> None:
    objective = OBJECTIVES[name]
    assert objective.name == name
    assert objective.title
    assert objective.paper
    assert inspect.getmodule(objective).__doc__
    assert all(field.description for field in objective.Settings.model_fields.values())
    with pytest.raises(ValueError, match="no_such_key"):
        objective.Settings(no_such_key=1)


@every_objective
def test_is_finite_smallest_at_equality_and_has_a_gradient(
    name: str, target: Callable, named: Callable
) -> None:
    objective, batch = named(name), target(torch.rand(2, 1, 24, 24))
    objective.prepare("cpu")
    equal, _ = objective(batch.full.clone(), batch)
    assert float(equal) == pytest.approx(AT_EQUALITY[name], abs=1e-6)
    denoised = (batch.full + 0.1 * torch.randn(2, 1, 24, 24)).requires_grad_()
    loss, parts = objective(denoised, batch)
    assert bool(loss.isfinite())
    assert float(loss.detach()) > float(equal)
    assert parts
    assert all(bool(part.isfinite()) and part.ndim == 0 for part in parts.values())
    loss.backward()
    assert denoised.grad is not None
    assert bool(denoised.grad.isfinite().all())
    assert bool((denoised.grad != 0).all())


@every_objective
def test_is_float32_and_the_same_under_autocast(
    name: str, target: Callable, named: Callable
) -> None:
    torch.manual_seed(0)
    objective, batch = named(name), target(torch.rand(2, 1, 24, 24))
    objective.prepare("cpu")
    denoised = torch.rand(2, 1, 24, 24).bfloat16()
    expected, _ = objective(denoised.float(), batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = objective(denoised, batch)
    assert {loss.dtype, *(part.dtype for part in parts.values())} == {torch.float32}
    assert torch.equal(loss, expected)


@every_objective
def test_is_a_mean_over_the_images(name: str, target: Callable, named: Callable) -> None:
    torch.manual_seed(0)
    objective, full, denoised = named(name), *torch.rand(2, 3, 1, 24, 24)
    objective.prepare("cpu")
    whole, _ = objective(denoised, target(full))
    each = [objective(d[None], target(f[None]))[0] for d, f in zip(denoised, full, strict=True)]
    torch.testing.assert_close(whole, torch.stack(each).mean())


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(PhysFedError, match=r"objective 'mae'.*mse, l1, charbonnier, ssim_mixed"):
        make_objective("mae")


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install an objective with a frozen network."""
    install(tmp_path / "site", monkeypatch, THEIRS, (OBJECTIVES, {"features": "Ours"}))


@pytest.mark.usefixtures("theirs")
def test_another_packages_objective_trains_a_round(tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(EXPERIMENT)
    experiment = load_experiment(path, [f"data.cache={tmp_path / 'cache'}"])
    out = tmp_path / "out"
    run_experiment(experiment, out, runtime="inline", tested=False)
    rows = pq.read_table(out / "metrics.parquet").to_pylist()
    found = {row["metric"]: row["value"] for row in rows
             if row["split"] == "train" and row["client"] == "c1"}  # fmt: skip
    assert found["loss"] == pytest.approx(0.25 * found["features"] + 0.75 * found["l1"])
    assert (
        "objective:\n    name: features\n    share: 0.25" in (out / "experiment.yaml").read_text()
    )


@pytest.mark.usefixtures("theirs")
def test_its_network_is_made_once_a_host_and_in_no_flat_vector(make_spec: Callable) -> None:
    plain = make_spec("fedper", unseen=0)
    spec = make_spec("fedper", unseen=0, objective="features")
    _, states, _ = build_network(spec)
    _, expected, _ = build_network(plain)
    assert [state.entries for state in states] == [state.entries for state in expected]
    made = OBJECTIVES["features"].networks.__globals__["MADE"]
    made.clear()
    spec = make_spec("fedper", unseen=0, objective="features")
    host = Host(spec)
    look = spec.method.objective.frozen()["look"]
    before = [parameter.clone() for parameter in look.parameters()]
    train_rounds(host, rounds=2)
    assert made == ["features"]
    assert {p.device.type for p in look.parameters()} == {torch.device(spec.device).type}
    assert all(
        torch.equal(a, b) and b.grad is None for a, b in zip(before, look.parameters(), strict=True)
    )


def train_rounds(host: Host, rounds: int) -> None:
    """Let a host train its three clients from the initial vector, round after round."""
    start = host.network.shared.vector.numpy().copy()
    for number in range(1, rounds + 1):
        turns = tuple(ClientTurn(client, number - 1) for client in range(3))
        results, _ = host.train(Order(number, 1e-3, (0, 1, 2), turns, (0,), False), start, {})
        assert not any(result.missing for result in results)

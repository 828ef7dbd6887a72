"""LEDA's loss by hand, the gradient of its discrete term, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from physfed_ray.assets.leda.autoencoder import Leda
from physfed_ray.assets.store import About, read_asset, write_asset
from physfed_ray.errors import PhysFedError
from physfed_ray.objectives.leda import LedaObjective
from physfed_ray.objectives.registry import make_objective
from tests.assets.leda.tiny import tiny_asset


@pytest.fixture
def asset(tmp_path: Path) -> str:
    """Return the path of a tiny autoencoder."""
    return str(tiny_asset(tmp_path).path)


def ready(asset: str, **settings: object) -> LedaObjective:
    objective = make_objective("leda", asset=asset, **settings)
    assert isinstance(objective, LedaObjective)
    objective.prepare("cpu")
    return objective


def images(side: int = 24) -> torch.Tensor:
    return torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("terms", ["both", "continuous", "discrete"])
def test_equation_3(asset: str, target: Callable, terms: str) -> None:
    full, denoised = images(), images() + 0.1 * torch.randn(2, 1, 24, 24)
    loss, parts = ready(asset, weight=0.25, terms=terms)(denoised, target(full))
    network = read_asset(asset).network()
    assert isinstance(network, Leda)
    (_, ours), (_, theirs) = network(denoised), network(full)
    z = (network.features(denoised) - network.features(full)).square().mean()
    q = (ours.average() - theirs.average()).square().mean()
    wanted = {"continuous": z, "discrete": q}
    wanted = {name: value for name, value in wanted.items() if terms in ("both", name)}
    mse = (denoised - full).square().mean()
    torch.testing.assert_close(loss, mse + 0.25 * sum(wanted.values()))
    assert {*parts} == {"mse", *wanted}
    for name, value in wanted.items():
        torch.testing.assert_close(parts[name], value)


def test_the_discrete_gradient_is_the_straight_through_formula(
    asset: str, target: Callable
) -> None:
    full, denoised = images(), (images() + 0.2 * torch.randn(2, 1, 24, 24)).requires_grad_()
    objective = ready(asset, terms="discrete", weight=1.0)
    _, parts = objective(denoised, target(full))
    loss, _ = objective(denoised, target(full))
    (found,) = torch.autograd.grad(loss, denoised)
    network = read_asset(asset).network()
    assert isinstance(network, Leda)
    z = network.features(denoised)
    q, q_full = (network.quantize(network.features(x)).output for x in (denoised, full))
    on_z = 2 * (q - q_full).detach() / q.numel()
    (through,) = torch.autograd.grad(z, denoised, on_z)
    expected = through + 2 * (denoised - full) / denoised.numel()
    torch.testing.assert_close(found, expected.detach())
    assert float(parts["discrete"]) > 0
    assert float(through.abs().max()) > 0


def test_random_weights_follow_their_seed_and_keep_the_codebook(
    asset: str, target: Callable
) -> None:
    trained, random, again, other = (
        ready(asset, **more).frozen()["leda"]
        for more in ({}, {"encoder": "random"}, {"encoder": "random"},
                     {"encoder": "random", "seed": 1})
    )  # fmt: skip
    weights = [
        dict(n.named_parameters())["before.0.weight"] for n in (trained, random, again, other)
    ]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[3])
    assert torch.equal(trained.table, random.table)
    spread = trained.table.std()
    z, _ = random(torch.nn.functional.interpolate(torch.rand(4, 1, 8, 8), scale_factor=4.0))
    assert 0.3 * spread < z.std() < 3 * spread  # of the codebook's size, as the trained one's


@pytest.mark.parametrize("side", [16, 17, 28])
def test_patches_of_any_side_and_another_base(asset: str, target: Callable, side: int) -> None:
    full, denoised = images(side), (images(side) + 0.1).requires_grad_()
    loss, parts = ready(asset, base="charbonnier")(denoised, target(full))
    loss.backward()
    assert bool(denoised.grad.isfinite().all())
    assert {*parts} == {"charbonnier", "continuous", "discrete"}


def test_what_it_asks_of_images_and_assets(asset: str) -> None:
    assert make_objective("leda", asset=asset).smallest_side == 16
    assert make_objective("leda", asset=asset, base="ssim_mixed").smallest_side == 16
    assert ready(asset).assets() == (asset,)


def test_no_asset_and_one_of_another_recipe_are_refused(asset: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="asset"):
        make_objective("leda")
    with pytest.raises(PhysFedError, match=r"there is no asset .*physfed pretrain"):
        ready("leda-000000000000")
    about = About("da_clip", {}, 32, (-1000.0, 2000.0))
    foreign = write_asset(tmp_path, about, torch.nn.Linear(1, 1), {})
    with pytest.raises(PhysFedError, match=r"asset of the recipe da_clip: name one .* as leda"):
        ready(str(foreign.path))

"""CoreDiff: the way between two doses, its loss by hand, its sampler, its refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.fields import Batch
from physfed_ray.methods.registry import METHODS
from physfed_ray.models.core_diff import (
    CoreDiff,
    CoreDiffSampler,
    CoreDiffSettings,
    full_dose_shares,
    sampled_steps,
)
from physfed_ray.models.registry import make_backbone

LOW = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
FULL = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))
Restorer = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class By(nn.Module):
    """A network that is a function of x, t and the pair, and notes what it was asked."""

    def __init__(self, restore: Restorer) -> None:
        super().__init__()
        self.restore, self.asked = restore, list[tuple[int, bool]]()

    def forward(self, x: Tensor, t: Tensor, pair: Tensor | None = None) -> Tensor:
        """Note the step, and restore."""
        self.asked.append((int(t), pair is not None))
        return self.restore(x, t, pair)


def sampler(restore: Restorer | None = None, **settings: object) -> CoreDiffSampler:
    """Return a small sampler, whose network is a given function or has random weights."""
    torch.manual_seed(3)
    made = CoreDiffSampler(CoreDiffSettings(channels=2, **settings))
    if restore is None:
        nn.init.normal_(made.network.last.weight, std=0.3)
    else:
        made.network = By(restore)  # type: ignore[assignment]
    return made


def batch() -> Batch:
    rows = torch.ones(2, 1, dtype=torch.bool)
    origin = torch.zeros(2, 2, dtype=torch.int64)
    return Batch(LOW, FULL, torch.rand(2, 7), torch.zeros(2, 1, 4), rows, origin, 16)


def squared(denoised: Tensor, seen: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    loss = functional.mse_loss(denoised, seen.full)
    return loss, {"mse": loss.detach()}


def test_the_share_of_the_full_dose_falls_evenly_to_none() -> None:
    shares = full_dose_shares(10)
    assert shares == pytest.approx([0.999, *(1 - t / 9 for t in range(1, 10))])
    assert (shares[-1], full_dose_shares(1), full_dose_shares(2)) == (0, [0], [0.999, 0])


def test_the_way_keeps_the_mean_between_both_ends() -> None:
    made = sampler()
    low, full = LOW * 0.5, FULL * 0.5 + 0.5
    means = [float(made.degraded(full, low, torch.tensor([t])).mean()) for t in range(10)]
    assert means == sorted(means, reverse=True)
    assert float(low.mean()) == pytest.approx(means[-1])
    assert float(low.mean()) <= min(means)
    assert max(means) < float(full.mean())


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("modulation", [True, False])
def test_a_perfect_restorer_gives_the_full_dose(steps: int, modulation: bool) -> None:
    made = sampler(lambda x, t, pair: FULL, steps=steps, modulation=modulation)
    images = made.images(LOW)
    assert len(images) == steps
    assert torch.equal(images[-1], FULL)
    asked = made.network.asked  # type: ignore[union-attr]
    assert asked[0] == (9, False), "nothing modulates the first estimate"
    assert all(modulated == modulation for _, modulated in asked[1:])
    for image, (t, _) in zip(images[:-1], asked[1:], strict=True):  # on the way at every step
        torch.testing.assert_close(image, made.degraded(FULL, LOW, torch.tensor([t])))


def test_the_sampler_is_the_difference_of_two_degradations() -> None:
    """As the paper writes it, with any network, step by step in float64."""
    made = sampler().double()
    low, a = LOW.double(), full_dose_shares(10)
    x, estimate = low, None
    for t in reversed(range(10)):
        pair = None if estimate is None else torch.cat((estimate, low), 1)
        estimate = made.network(x, torch.tensor([t]), pair)
        end = (x - a[t] * estimate) / (1 - a[t])
        now = a[t] * estimate + (1 - a[t]) * end
        before = estimate if t == 0 else a[t - 1] * estimate + (1 - a[t - 1]) * end
        x = x - now + before
    torch.testing.assert_close(made(low), x, atol=1e-9, rtol=1e-9)
    assert not torch.allclose(x, low, atol=0.01)


def test_steps_are_spread_evenly() -> None:
    shares = full_dose_shares(10)
    assert [t for t, _ in sampled_steps(shares, 3)] == [9, 6, 3]
    assert sampled_steps(shares, 1) == [(9, 1.0)]


@pytest.mark.parametrize("t", [0, 1, 6, 9])
def test_the_loss_is_that_of_both_estimates(monkeypatch: pytest.MonkeyPatch, t: int) -> None:
    """The second estimate starts from the first one and the low dose, one step further."""
    backbone = CoreDiff(CoreDiffSettings(channels=2, second_weight=0.3))
    made, a = sampler(second_weight=0.3), full_dose_shares(10)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([t]))
    loss, parts = backbone.fit(made, batch(), squared)
    first = made.network(a[t] * FULL + (1 - a[t]) * LOW, torch.tensor([t]))
    second = first
    if t:
        mixed = a[t - 1] * first + (1 - a[t - 1]) * LOW
        second = made.network(mixed, torch.tensor([t - 1]), torch.cat((first, LOW), 1))
    one, two = functional.mse_loss(first, FULL), functional.mse_loss(second, FULL)
    assert loss.item() == pytest.approx((0.7 * one + 0.3 * two).item(), rel=1e-5)
    assert float(parts["mse"]) == pytest.approx(float(loss), rel=1e-5)
    loss.backward()
    got = [parameter.grad for parameter in made.parameters()]
    made.zero_grad()
    (0.7 * one + 0.3 * two).backward()
    for found, parameter in zip(got, made.parameters(), strict=True):  # the first is not detached
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_one_step_is_a_residual_regression() -> None:
    backbone = make_backbone("core_diff", channels=2, steps_training=1)
    assert backbone.steps == 1
    made = sampler(steps_training=1)
    loss, _ = backbone.fit(made, batch(), squared)
    assert float(loss) == float(functional.mse_loss(made(LOW), FULL))


def test_the_seed_decides_the_step_and_denoising_draws_nothing() -> None:
    backbone, made = make_backbone("core_diff", channels=2), sampler()
    losses = []
    for seed in (1, 1, 2, 3):
        torch.manual_seed(seed)
        losses.append(float(backbone.fit(made, batch(), squared)[0]))
    assert losses[0] == losses[1]
    assert len(set(losses)) > 1
    before = torch.get_rng_state()
    assert torch.equal(made(LOW), made(LOW))
    assert torch.equal(before, torch.get_rng_state())


def test_denoising_takes_no_more_steps_than_were_trained() -> None:
    assert make_backbone("core_diff", steps_training=4).steps == 4
    assert make_backbone("core_diff", steps=3).label == "core_diff with 64 channels, 3 steps"
    with pytest.raises(ValidationError, match="steps_training = 4 steps: set 'steps'"):
        make_backbone("core_diff", steps_training=4, steps=5)


TAKE_IT = {"fedavg", "fedprox", "fednova", "local", "pooled"}
EXPERIMENT = """
name: ways
data: {source: {phantom: {patients: 4, slices: 1}}, image_size: 32, test_patients: 1}
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
backbone: {name: core_diff, channels: 2}
"""


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_it_or_says_in_a_sentence_why_not(name: str, tmp_path: Path) -> None:
    """Those that take it train and serve in ``tests/serving/test_trained.py``."""
    path = tmp_path / "ways.yaml"
    path.write_text(EXPERIMENT)
    if name in TAKE_IT:
        assert load_experiment(path, [f"method={name}"]).backbone.name == "core_diff"
        return
    with pytest.raises(PhysFedError, match="core_diff") as refused:
        load_experiment(path, [f"method={name}"])
    assert "choose" in str(refused.value)
    assert "\n" not in str(refused.value)

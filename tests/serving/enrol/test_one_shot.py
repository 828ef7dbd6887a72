"""Weights of a diffusion network's steps after one slice of a new scanner."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.enrol.card import read_private
from physfed_ray.serving.enrol.one_shot import StepWeights, fit_weights
from physfed_ray.serving.trained import load_run
from tests.serving.enrol.conftest import TinyRun

FULL = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(1))


def error(logits: torch.Tensor, images: list[torch.Tensor]) -> float:
    weights = StepWeights(len(images))
    with torch.no_grad():
        weights.logits.copy_(logits)
        return float((weights(images) - FULL).square().mean())


def test_fitted_weights_sum_to_one_and_beat_equal_ones() -> None:
    rng = torch.Generator().manual_seed(2)
    images = [FULL + s * torch.randn(FULL.shape, generator=rng) for s in (0.3, 0.1, 0.05, 0.1)]
    logits = fit_weights(images, FULL)
    weights = logits.softmax(0)
    assert float(weights.sum()) == pytest.approx(1)
    assert error(logits, images) < 0.5 * error(torch.zeros(4), images)
    # Of independent errors the best weights are as 1 / variance.
    variance = torch.tensor([float((image - FULL).var()) for image in images])
    best = 1 / variance / (1 / variance).sum()
    torch.testing.assert_close(weights, best, atol=0.06, rtol=0)


def test_a_slice_that_is_perfect_already_leaves_equal_weights() -> None:
    assert torch.equal(fit_weights([FULL, FULL], FULL), torch.zeros(2))


def test_a_new_client_weights_the_steps_and_changes_nothing_else(
    trained: Callable[..., TinyRun],
) -> None:
    tiny = trained("fedavg", backbone={"name": "core_diff", "channels": 2, "steps_training": 3})
    before, run = tiny.files(), load_run(tiny.root)
    card = tiny.enrol(one_shot=True, curve=None, rounds=None)
    assert tiny.files() == before
    assert (card.trained, card.start, card.one_shot) == (("one_shot",), "initial", True)
    (logits,) = read_private(RunDirectory(tiny.root), card).values()
    assert logits.shape == (3,)
    assert bool(logits.any())
    assert (card.results[-1].slices, len(card.results[-1].validation)) == (1, 2)
    data = tiny.test_data()
    decoder = run.denoiser(protocol=card.protocol, device="cpu").network.get_submodule("decoder")
    with torch.inference_mode():
        low = torch.from_numpy(np.array(data.low))[:, None]
        images = torch.stack(decoder.images(low))  # type: ignore[operator]
        expected = (logits.softmax(0)[:, None, None, None, None] * images).sum(0)
    found = load_run(tiny.root).denoiser("north", device="cpu").denoise(data.low)
    np.testing.assert_allclose(found, expected.squeeze(1).clamp(0, 1).numpy(), atol=1e-6)
    again = tiny.enrol(one_shot=True, curve=None, rounds=None, again=True)
    assert again.weights == card.weights
    assert tiny.enrol(name="south").trained == ("decoder",)  # and not by the weights alone


def test_what_has_no_steps_to_weight_is_refused(
    tiny: TinyRun, trained: Callable[..., TinyRun]
) -> None:
    with pytest.raises(PhysFedError, match="FedPer a new client trains a part of its own: leave"):
        tiny.enrol(one_shot=True)
    with pytest.raises(PhysFedError, match="RED-CNN has none: leave it out"):
        trained("fedavg").enrol(one_shot=True)

"""DA-Diff as a backbone: its loss, its sampler, and a perception that is no part of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from physfed_ray.assets.da_clip.recipe import DAClipRecipe, DAClipSettings
from physfed_ray.assets.store import About, write_asset
from physfed_ray.cost.operations import Operations
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch
from physfed_ray.models.base import Backbone
from physfed_ray.models.registry import make_backbone


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of an untrained DA-CLIP."""
    settings = DAClipSettings(channels=2, dose_dim=6, anatomy_dim=5)
    doses = torch.tensor([0.0, 1.0])
    constants = {"sentences": torch.rand(2, 3), "doses": doses, "full_photons": torch.tensor(1e5)}
    torch.manual_seed(1)
    network = DAClipRecipe(settings).network(constants)
    about = About("da_clip", settings.model_dump(mode="json"), 32, (-1000.0, 2000.0))
    return str(write_asset(tmp_path_factory.mktemp("assets"), about, network, constants).path)


def batch(side: int = 16) -> Batch:
    """Return three pairs of random images."""
    rng = torch.Generator().manual_seed(3)
    low, full = (torch.rand(3, 1, side, side, generator=rng) for _ in range(2))
    nothing = torch.zeros(3, 1)
    return Batch(low, full, torch.zeros(3, 7), nothing, nothing, nothing, side)


def judge(estimate: Tensor, given: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean squared error."""
    loss = (estimate - given.full).square().mean()
    return loss, {"mse": loss.detach()}


def moved(backbone: Backbone) -> nn.Module:
    """Return a decoder away from its start."""
    torch.manual_seed(5)
    decoder = backbone.decoder()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def test_the_loss_at_the_start_is_that_of_the_low_dose() -> None:
    backbone, given = make_backbone("da_diff", channels=4), batch()
    loss, parts = backbone.fit(backbone.decoder(), given, judge)
    torch.testing.assert_close(loss.detach(), judge(given.low, given)[0])
    assert parts["mse"] == loss


def test_fit_draws_steps_and_noise_from_the_seed() -> None:
    backbone, given = make_backbone("da_diff", channels=4), batch()
    decoder = moved(backbone)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(backbone.fit(decoder, given, judge)[0].detach()))
    assert losses[0] == losses[1] != losses[2]


def test_what_the_network_predicts_is_taken_off_the_low_dose() -> None:
    backbone, given = make_backbone("da_diff", channels=4), batch()
    decoder = backbone.decoder()
    with torch.no_grad():
        decoder.get_parameter("unet.out.bias").fill_(0.25)  # of [-1, 1]: half as much of [0, 1]
    estimate = decoder.estimate(given, torch.tensor([0, 500, 999]), torch.randn(3, 1, 16, 16))
    torch.testing.assert_close(estimate.detach(), given.low - 0.125)
    found = decoder(given.low, ()).detach()
    torch.testing.assert_close(found, (given.low - 0.125).clamp(0, 1))


@pytest.mark.parametrize("start_noise", [0.0, 1.0])
def test_a_slice_is_denoised_alike_in_any_batch(start_noise: float) -> None:
    backbone, given = make_backbone("da_diff", channels=4, start_noise=start_noise), batch()
    decoder = moved(backbone).eval()
    with torch.inference_mode():
        together = decoder(given.low, ())
        torch.manual_seed(77)
        alone = torch.cat([decoder(image[None], ()) for image in given.low.flip(0)]).flip(0)
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)
    assert not torch.allclose(together, given.low, atol=1e-3)


def test_the_start_noise_and_the_steps_matter() -> None:
    given = batch()
    found = []
    for keys in ({}, {"start_noise": 1.0}, {"steps": 4}):
        with torch.inference_mode():
            found.append(moved(make_backbone("da_diff", channels=4, **keys))(given.low, ()))
    assert not torch.allclose(found[0], found[1], atol=1e-5)
    assert not torch.allclose(found[0], found[2], atol=1e-5)


def test_perception_is_no_part_of_the_network(asset: str) -> None:
    backbone, given = make_backbone("da_diff", channels=4, asset=asset), batch()
    decoder = moved(backbone)
    before = set(decoder.state_dict())
    loss, _ = backbone.fit(decoder, given, judge)
    loss.backward()
    assert set(decoder.state_dict()) == before
    assert all(p.grad is not None and bool(p.grad.any()) for p in decoder.parameters())
    assert backbone.assets() == (asset,)
    assert make_backbone("da_diff").assets() == ()


@pytest.mark.parametrize("first", ["denoise", "fit"])
def test_perception_made_while_denoising_serves_in_training(asset: str, first: str) -> None:
    backbone, given = make_backbone("da_diff", channels=4, asset=asset), batch()
    decoder = moved(backbone)
    if first == "denoise":
        with torch.inference_mode():
            decoder(given.low, ())
    backbone.fit(decoder, given, judge)[0].backward()
    dose, anatomy = decoder.perceive(given.low)
    assert dose.shape == (3, 6)
    assert anatomy.shape == (3, 5)
    torch.testing.assert_close(dose.norm(dim=1), torch.ones(3))
    with torch.inference_mode():
        swapped = decoder.sample(given.low, dose.flip(0), anatomy)[-1]
        assert not torch.equal(swapped, decoder(given.low, ()))


def test_its_operations_can_be_counted_without_content(asset: str) -> None:
    with FakeTensorMode(), Operations() as operations:
        backbone = make_backbone("da_diff", channels=4, asset=asset)
        image, nothing = torch.rand(3, 1, 16, 16), torch.zeros(3, 1)
        given = Batch(image, image, torch.zeros(3, 7), nothing, nothing, nothing, 16)
        backbone.fit(backbone.decoder(), given, judge)[0].backward()
    assert operations.total > 1e6


def test_bf16_leaves_images_in_float32(asset: str) -> None:
    backbone, given = make_backbone("da_diff", channels=4, asset=asset), batch()
    decoder = moved(backbone)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = backbone.fit(decoder, given, judge)
        with torch.inference_mode():
            image = decoder(given.low, ())
    loss.backward()
    assert loss.dtype == image.dtype == torch.float32
    with torch.inference_mode():
        torch.testing.assert_close(image, decoder(given.low, ()), rtol=0, atol=0.1)


def test_an_asset_that_is_none_is_refused_in_a_sentence(asset: str, tmp_path: Path) -> None:
    with pytest.raises(PhysFedError, match=r"there is no asset .*/da_clip-000000000000"):
        make_backbone("da_diff", asset=str(tmp_path / "da_clip-000000000000.safetensors")).decoder()
    about = About("leda", {}, 32, (-1000.0, 2000.0))
    other = write_asset(tmp_path, about, nn.Linear(2, 2), {})
    with pytest.raises(PhysFedError, match="is an asset of the recipe 'leda', and da_diff needs"):
        make_backbone("da_diff", asset=str(other.path)).decoder()


def test_labels_tell_widths_and_perception_apart() -> None:
    assert make_backbone("da_diff").label == "da_diff 16-32-64 without perception"
    paper = make_backbone("da_diff", channels=64, levels=4, asset="da_clip-000000000000")
    assert paper.label == "da_diff 64-128-256-512 with DA-CLIP"

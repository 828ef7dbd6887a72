"""DA-CLIP's network: what it sees and what it returns."""

import pytest
import torch

from physfed_ray.assets.da_clip.network import LOGIT_SCALE, DAClip, Input, Norm, noise_visible


def test_the_high_pass_channel_shows_noise_and_no_flat_image() -> None:
    flat = torch.full((1, 1, 6, 6), 0.4)
    shown = noise_visible(flat)
    torch.testing.assert_close(shown[:, :1], torch.full_like(flat, -0.2))
    assert float(shown[:, 1].abs().max()) < 1e-4
    flat[0, 0, 2, 2] += 0.009
    assert float(noise_visible(flat)[0, 1, 2, 2]) == pytest.approx(0.8, rel=1e-3)
    flat[0, 0, 2, 2] += 0.5
    assert float(noise_visible(flat)[0, 1, 2, 2]) == 1.0


@pytest.mark.parametrize("seen", ["image", "noise"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_embeddings_have_unit_length_for_images_of_any_size(seen: Input, norm: Norm) -> None:
    network = DAClip(2, 6, 5, seen, norm, {"sentences": torch.rand(2, 3)})
    for size in ((16, 16), (21, 34)):
        dose, anatomy = network(torch.rand(3, 1, *size))
        assert dose.shape == (3, 6)
        assert anatomy.shape == (3, 5)
        for embedding in (dose, anatomy):
            torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


def test_the_preference_is_the_difference_of_two_scaled_cosines() -> None:
    network = DAClip(2, 2, 2, "noise", "batch", {"sentences": torch.eye(2)})
    with torch.no_grad():
        network.text.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
        network.text.bias.zero_()
    found = network.preference(torch.tensor([[1.0, 0.0], [0.6, 0.8]])).detach()
    torch.testing.assert_close(found, LOGIT_SCALE * torch.tensor([1.0, -0.2]))

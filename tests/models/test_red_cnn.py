"""RED-CNN: shapes, the identity at the start, and that patches see what whole images see."""

import pytest
import torch
from torch.nn import functional

from physfed_ray.models.red_cnn import RedCNN, RedCNNDecoder, RedCNNEncoder, RedCNNSettings


def reference(x: torch.Tensor, encoder: RedCNNEncoder, decoder: RedCNNDecoder) -> torch.Tensor:
    """RED-CNN as its paper draws it, in one piece."""
    c = [(layer.weight, layer.bias) for layer in encoder.layers]
    d = [(layer.weight, layer.bias) for layer in decoder.layers]
    out = (x - 0.25) / 0.5
    skips = []
    for i, (weight, bias) in enumerate(c):
        out = functional.conv2d(out, weight, bias).relu()
        if i in (1, 3):
            skips.append(out)
    for i, (weight, bias) in enumerate(d):
        out = functional.conv_transpose2d(out, weight, bias)
        if i in (0, 2):
            out = out + skips.pop()
        out = out + x if i == 4 else out.relu()
    return out


@pytest.fixture
def halves() -> tuple[RedCNNEncoder, RedCNNDecoder]:
    torch.manual_seed(0)
    encoder, decoder = RedCNNEncoder(4, 0.25, 0.5), RedCNNDecoder(4)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return encoder, decoder


def test_equals_the_undivided_network(halves):
    encoder, decoder = halves
    x = torch.rand(2, 1, 27, 32)
    f, skips = encoder(x)
    torch.testing.assert_close(decoder(f, skips), reference(x, encoder, decoder))


@pytest.mark.parametrize("size", [(21, 21), (33, 40), (64, 37)])
def test_shapes(halves, size):
    encoder, decoder = halves
    h, w = size
    f, skips = encoder(torch.rand(2, 1, h, w))
    assert f.shape == (2, 4, h - 20, w - 20)
    assert [tuple(s.shape) for s in skips] == [
        (2, 1, h, w),
        (2, 4, h - 8, w - 8),
        (2, 4, h - 16, w - 16),
    ]
    assert decoder(f, skips).shape == (2, 1, h, w)


def test_starts_as_the_identity():
    encoder, decoder = RedCNNEncoder(4, 0.3, 0.2), RedCNNDecoder(4)
    x = torch.randn(2, 1, 25, 25)
    assert torch.equal(decoder(*encoder(x)), x)


def test_features_of_a_patch_are_a_crop_of_the_images_features(halves):
    encoder, _ = halves
    x = torch.rand(1, 1, 50, 50)
    whole, _ = encoder(x)
    part, _ = encoder(x[:, :, 7:37, 11:46])
    torch.testing.assert_close(part, whole[:, :, 7:17, 11:26])


def test_statistics_of_the_data_do_not_travel():
    assert not {"mean", "std"} & RedCNNEncoder(2, 0.3, 0.2).state_dict().keys()


def with_norms() -> tuple[RedCNNEncoder, RedCNNDecoder]:
    torch.manual_seed(0)
    backbone = RedCNN(RedCNNSettings(channels=4))
    encoder, decoder = RedCNNEncoder(4, 0.25, 0.5), RedCNNDecoder(4)
    for half in (encoder, decoder):
        state = torch.get_rng_state()
        assert backbone.add_norms(half) is half
        assert torch.equal(state, torch.get_rng_state())
    return encoder, decoder


def normalised_reference(
    x: torch.Tensor, encoder: RedCNNEncoder, decoder: RedCNNDecoder
) -> torch.Tensor:
    """RED-CNN with a batch's own normalisation between each layer and what follows it."""

    def normal(out: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
        mean = out.mean((0, 2, 3), keepdim=True)
        variance = (out - mean).square().mean((0, 2, 3), keepdim=True)
        weight, bias = norm.weight[:, None, None], norm.bias[:, None, None]
        return weight * (out - mean) / (variance + 1e-5).sqrt() + bias

    out, skips = (x - 0.25) / 0.5, []
    for i, (layer, norm) in enumerate(zip(encoder.layers, encoder.norms, strict=True)):
        out = normal(functional.conv2d(out, layer.weight), norm).relu()
        if i in (1, 3):
            skips.append(out)
    for i, (layer, norm) in enumerate(zip(decoder.layers[:4], decoder.norms, strict=True)):
        out = normal(functional.conv_transpose2d(out, layer.weight), norm)
        out = (out + skips.pop() if i in (0, 2) else out).relu()
    return decoder.layers[4](out) + x


def test_batch_norm_stands_before_skip_and_activation():
    encoder, decoder = with_norms()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.rand(3, 1, 27, 24)
    expected = normalised_reference(x, encoder, decoder)
    torch.testing.assert_close(decoder(*encoder(x)), expected, atol=1e-4, rtol=1e-4)


def test_batch_norm_takes_the_place_of_biases_and_leaves_the_weights():
    torch.manual_seed(0)
    plain = RedCNNEncoder(4), RedCNNDecoder(4)
    for before, after in zip(plain, with_norms(), strict=True):
        old, new = before.state_dict(), dict(after.layers.named_parameters(prefix="layers"))
        gone = {f"layers.{name}.bias" for name, _ in after.norms.named_children()}
        assert old.keys() - new.keys() == gone
        assert all(torch.equal(old[name], value) for name, value in new.items())
    assert len(gone) == 4  # the decoder's last layer keeps its bias


def test_batch_norm_starts_as_the_identity():
    encoder, decoder = with_norms()
    x = torch.randn(2, 1, 25, 25)
    assert torch.equal(decoder(*encoder(x)), x)

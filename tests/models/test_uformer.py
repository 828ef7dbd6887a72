"""Uformer: the paper's sizes, shapes for any image, and the identity at the start."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from physfed_ray.models.uformer import SIZES, UformerDecoder, UformerEncoder

PAPER = {"T": (5.23, 12.00), "S": (20.63, 43.86), "B": (50.88, 89.46)}
"""Parameters in millions, and multiplications with additions at 256x256 in thousand millions."""

DEPTHS = SIZES["T"].depths


def parameters(*halves: nn.Module) -> dict[str, int]:
    return {
        f"{place}.{name}": parameter.numel()
        for place, half in enumerate(halves)
        for name, parameter in half.named_parameters()
    }


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_the_papers(size):
    chosen = SIZES[size]
    with torch.device("meta"):
        encoder = UformerEncoder(chosen.channels, chosen.depths, image_channels=3)
        decoder = UformerDecoder(chosen.channels, chosen.depths, image_channels=3)
    counts = parameters(encoder, decoder)
    assert sum(counts.values()) / 1e6 == pytest.approx(PAPER[size][0], rel=0.02)
    # To the last digit, T and S are printed without their modulators, and B with them.
    left_out = () if size == "B" else ("modulator",)
    printed = sum(count for name, count in counts.items() if not name.endswith(left_out))
    assert round(printed / 1e6, 2) == PAPER[size][0]


@pytest.mark.parametrize("size", SIZES)
def test_operations_are_the_papers(size):
    """FLOPs at 256x256 and three channels.

    The authors' own count charges a 2x2 transposed convolution of stride 2 all four taps for each
    output, of which each sees one: four times the operations. Theirs is the number in the paper.
    """
    chosen = SIZES[size]
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        encoder = UformerEncoder(chosen.channels, chosen.depths, image_channels=3)
        decoder = UformerDecoder(chosen.channels, chosen.depths, image_channels=3)
        decoder(*encoder(torch.rand(1, 3, 256, 256)))
    macs = counter.get_total_flops() / 2
    upsampling = sum(
        layer.weight.numel() * (16 << level) ** 2 for level, layer in enumerate(decoder.up)
    )
    assert (macs + 3 * upsampling) / 1e9 == pytest.approx(PAPER[size][1], rel=0.005)
    assert macs / 1e9 == pytest.approx(PAPER[size][1], rel=0.07)


@pytest.fixture
def halves() -> tuple[UformerEncoder, UformerDecoder]:
    torch.manual_seed(0)
    encoder, decoder = UformerEncoder(2, DEPTHS, 0.25, 0.5), UformerDecoder(2, DEPTHS)
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        nn.init.normal_(parameter, std=0.2)
    return encoder, decoder


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 50), (64, 37)])
def test_shapes(halves, size):
    encoder, decoder = halves
    h, w = (-(-side // 16) for side in size)
    f, skips = encoder(torch.rand(2, 1, *size))
    assert f.shape == (2, 32, h, w)
    assert [tuple(skip.shape) for skip in skips] == [
        (2, 1, *size),
        (2, 2, 16 * h, 16 * w),
        (2, 4, 8 * h, 8 * w),
        (2, 8, 4 * h, 4 * w),
        (2, 16, 2 * h, 2 * w),
    ]
    assert decoder(f, skips).shape == (2, 1, *size)


@torch.no_grad()
def test_an_image_is_continued_by_its_edge(halves):
    encoder, decoder = halves
    x = torch.rand(1, 1, 30, 21)
    continued = functional.pad(x, (0, 11, 0, 2), mode="replicate")
    inside = decoder(*encoder(continued))[:, :, :30, :21]
    torch.testing.assert_close(decoder(*encoder(x)), inside)


@torch.no_grad()
def test_input_is_standardised(halves):
    encoder, _ = halves
    other = UformerEncoder(2, DEPTHS)
    other.load_state_dict(encoder.state_dict())
    x = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(other((x - 0.25) / 0.5)[0], encoder(x)[0])


@pytest.mark.parametrize("size", SIZES)
def test_starts_as_the_identity(size):
    torch.manual_seed(0)
    encoder, decoder = UformerEncoder(1, SIZES[size].depths), UformerDecoder(1, SIZES[size].depths)
    x = torch.randn(2, 1, 25, 25)
    assert torch.equal(decoder(*encoder(x)), x)


@torch.no_grad()
def test_a_feature_of_one_corner_reaches_the_other(halves):
    """The bottleneck, whose windows are 128 pixels wide, joins what no other stage does."""
    encoder, decoder = halves
    x = torch.rand(1, 1, 64, 64)
    changed = x.clone()
    changed[:, :, 0, 0] += 1
    assert (encoder(x)[0] - encoder(changed)[0])[..., 3, 3].abs().max() > 0
    assert (decoder(*encoder(x)) - decoder(*encoder(changed)))[..., 63, 63].abs() > 0


def test_features_are_channels_last(halves):
    encoder, _ = halves
    f, skips = encoder(torch.rand(2, 1, 32, 32))
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (f, *skips))


def test_only_parameters_travel(halves):
    for half in halves:
        assert half.state_dict().keys() == dict(half.named_parameters()).keys()

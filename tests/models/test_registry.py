"""Backbones by name."""

import pytest
import torch
from pydantic import ValidationError

from physfed_ray.models.registry import (
    BACKBONES,
    BackboneSettings,
    backbone_of,
    make_backbone,
    parameter_counts,
)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(64, 64), (37, 50)])
def test_encode_and_decode(name, size):
    settings = BackboneSettings(name=name, channels=4)
    encoder, decoder = make_backbone(settings, 0.3, 0.2)
    x = torch.rand(2, 1, *size)
    f, skips = encoder(x)
    assert f.shape[:2] == (2, backbone_of(settings).feature_channels(settings))
    assert torch.equal(decoder(f, skips), x)


@pytest.mark.parametrize("name", BACKBONES)
def test_stride_is_the_distance_of_features(name):
    encoder, _ = make_backbone(BackboneSettings(name=name, channels=4))
    side = [encoder(torch.rand(1, 1, n, n))[0].shape[-1] for n in (64, 128)]
    assert (128 - 64) / (side[1] - side[0]) == encoder.stride


def test_red_cnn_has_the_papers_size():
    encoder, decoder = make_backbone(BackboneSettings())
    counts = parameter_counts(torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder}))
    assert counts == {
        "encoder": 96 * 26 + 4 * 96 * (96 * 25 + 1),
        "decoder": 4 * 96 * (96 * 25 + 1) + 96 * 25 + 1,
    }


@pytest.mark.parametrize(
    ("keys", "size", "channels"),
    [
        ({}, None, 96),
        ({"channels": 32}, None, 32),
        ({"name": "uformer"}, "T", 16),
        ({"name": "uformer", "size": "S"}, "S", 32),
        ({"name": "uformer", "size": "B", "channels": 8}, "B", 8),
    ],
)
def test_a_network_brings_its_own_defaults(keys, size, channels):
    settings = BackboneSettings(**keys)
    assert (settings.size, settings.channels) == (size, channels)
    assert BackboneSettings(**settings.model_dump()) == settings


def test_sizes_differ_in_their_depths():
    counts = []
    for size in ("S", "B"):
        settings = BackboneSettings(name="uformer", size=size, channels=2)
        halves = torch.nn.ModuleList(make_backbone(settings))
        counts.append(sum(parameter.numel() for parameter in halves.parameters()))
        assert settings.label == f"uformer {size} with 2 channels"
    assert counts[0] < counts[1]


@pytest.mark.parametrize("name", BACKBONES)
def test_skips_have_the_channels_they_say(name):
    settings = BackboneSettings(name=name, channels=4)
    skips = make_backbone(settings)[0](torch.rand(1, 1, 32, 32))[1]
    channels = backbone_of(settings).skip_channels(settings)
    assert [skip.shape[1] for skip in skips] == [count or 1 for count in channels]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"name": "uformer", "size": "L"}, "uformer has the sizes T, S, B: set 'size'"),
        ({"name": "uformer", "size": None}, "uformer has the sizes T, S, B: set 'size'"),
        ({"size": "T"}, "red_cnn has no sizes: leave 'size' out"),
        ({"name": "uformer", "channels": 0}, "greater than or equal to 1"),
        ({"name": ["uformer"]}, "valid string"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(keys, words):
    with pytest.raises(ValidationError, match=words) as refused:
        BackboneSettings(**keys)
    assert refused.value.error_count() == 1


def test_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(ValidationError, match=r"unknown backbone 'red_cn'.*red_cnn"):
        BackboneSettings(name="red_cn")

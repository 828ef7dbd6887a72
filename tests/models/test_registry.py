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


def test_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(ValidationError, match=r"unknown backbone 'red_cn'.*red_cnn"):
        BackboneSettings(name="red_cn")

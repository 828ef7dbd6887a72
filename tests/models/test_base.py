"""What every backbone has without saying so."""

import pytest
import torch
from torch import nn

from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch
from physfed_ray.models.base import Backbone, NetworkSettings
from physfed_ray.models.registry import make_backbone


class Plain(Backbone):
    """One convolution and its inverse; nothing to set."""

    name = "plain"
    title = "Plain"
    paper = "none"
    stride = 1
    feature_channels = 3
    skips = ()

    def encoder(self, mean: float, std: float) -> nn.Module:
        """See ``Backbone``."""
        return nn.Conv2d(1, 3, 1)

    def decoder(self) -> nn.Module:
        """See ``Backbone``."""
        return nn.Conv2d(3, 1, 1)


def test_a_network_that_declares_nothing_offers_nothing() -> None:
    plain = Plain(NetworkSettings())
    assert (plain.norms, plain.guide, plain.fields, plain.domain) == ((), None, (), "image")
    assert plain.label == "plain"
    half = plain.decoder()
    assert plain.add_norms(half) is half


def test_the_low_dose_image_is_what_it_reads() -> None:
    low, nothing = torch.rand(1, 1, 8, 8), torch.zeros(1, 1)
    batch = Batch(low, torch.rand(1, 1, 8, 8), torch.zeros(1, 7), nothing, nothing, nothing, 8)
    (image,) = Plain(NetworkSettings()).inputs(batch)
    assert image is low


def test_another_width_is_checked_against_the_networks_own_settings() -> None:
    wide = make_backbone("uformer", size="S", channels=4).with_channels(6)
    assert wide.settings.model_dump() == {"size": "S", "channels": 6}
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        wide.with_channels(0)
    with pytest.raises(PhysFedError, match="'plain' has no key 'channels'"):
        Plain(NetworkSettings()).with_channels(6)

"""Modulation behind every convolution: the identity at 1 and 0, and the formula elsewhere."""

import pytest
import torch
from torch import nn

from physfed_ray.models.base import DiffusionBackbone
from physfed_ray.models.film import modulated, modulated_widths
from physfed_ray.models.registry import BACKBONES, make_backbone
from tests.models.test_registry import some

HALVES = [name for name, kind in BACKBONES.items() if not issubclass(kind, DiffusionBackbone)]


@pytest.mark.parametrize("name", HALVES)
def test_one_and_zero_change_nothing(name: str) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(name, channels=4)
    encoder = backbone.encoder(0.4, 0.2)
    seen = backbone.inputs(some(backbone, torch.rand(2, 1, 32, 32)))
    count = sum(modulated_widths(lambda: backbone.encoder(0.4, 0.2)))
    f, _ = encoder(*seen)
    same, _ = modulated(encoder, torch.ones(1, count), torch.zeros(1, count), *seen)
    assert torch.equal(f, same)
    other, _ = modulated(encoder, torch.ones(1, count), torch.full((1, count), 0.5), *seen)
    assert not torch.equal(f, other)
    assert torch.equal(encoder(*seen)[0], f), "nothing is left behind"


def test_each_image_has_its_own_values() -> None:
    """H = alpha (w x + b) + beta, by hand for two 1 x 1 convolutions and a ReLU."""
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    values = (torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.0]), torch.tensor([1.0, 3.0]))
    with torch.no_grad():
        module[0].weight.copy_(values[0].view(2, 1, 1, 1))
        module[0].bias.copy_(values[1])
        module[2].weight.copy_(values[2].view(1, 2, 1, 1))
        module[2].bias.zero_()
    assert modulated_widths(lambda: module) == [2, 1]
    alpha = torch.tensor([[1.0, 2.0, 1.0], [3.0, 1.0, -1.0]])
    beta = torch.tensor([[0.0, 5.0, 0.0], [1.0, 0.0, 2.0]])
    x = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    made = modulated(module, alpha, beta, x)
    first = 1 * 2.5 + 3 * (2 * -1 + 5)  # h = (2.5, 3), then 1 (1 h1 + 3 h2)
    second = -1 * (1 * (3 * 4.5 + 1) + 3 * 0) + 2  # h = (14.5, relu(-2) = 0)
    assert made.flatten().tolist() == [first, second]


def test_an_error_inside_leaves_nothing_behind() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(7, 1))
    with pytest.raises(RuntimeError):
        modulated(module, torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1, 2, 2))
    assert not module[0]._forward_hooks

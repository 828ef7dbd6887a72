"""The modulation's exact expressions, and where a map lies on a patch."""

import pytest
import torch
from torch.nn import functional

from physfed_ray.fields import Batch
from physfed_ray.models.modulation import map_at, map_on_features, modulate_paper

F = torch.tensor([[[[2.0, -1.0]], [[4.0, 3.0]]]])
M = torch.tensor([[[[0.5, 2.0]]]])
ALPHA, BETA = torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 10.0]])


def test_paper_variant():
    # alpha * (f . m) + beta: 3 * (2 * 0.5) + 1, 3 * (-1 * 2) + 1; -(4 * 0.5) + 10, -(3 * 2) + 10
    expected = torch.tensor([[[[4.0, -5.0]], [[8.0, 4.0]]]])
    assert torch.equal(modulate_paper(F, M, ALPHA, BETA), expected)


@pytest.mark.parametrize("source", [1, 3, 16])
@pytest.mark.parametrize("whole", [(5, 9), (40, 31)])
def test_whole_image_is_bilinear_interpolation(source, whole):
    m = torch.randn(2, 1, source, source)
    sampled = map_at(m, whole, whole, torch.zeros(2, 2))
    expected = functional.interpolate(m, whole, mode="bilinear")
    torch.testing.assert_close(sampled, expected)


def test_patch_is_a_crop_of_the_whole_map():
    m = torch.randn(2, 1, 7, 7)
    whole = map_at(m, (44, 44), (44, 44), torch.zeros(2, 2))
    patch = map_at(m, (12, 10), (44, 44), torch.tensor([[5, 30], [32, 0]]))
    expected = torch.stack([whole[0, :, 5:17, 30:40], whole[1, :, 32:44, 0:10]])
    torch.testing.assert_close(patch, expected)


@pytest.mark.parametrize("stride", [1, 4])
def test_geometry_from_the_batch(stride):
    m = torch.randn(1, 1, 5, 5)
    low = torch.zeros(1, 1, 32, 48)
    origin = torch.tensor([[8, 16]])
    batch = Batch(low, low, torch.zeros(1, 7), low, low, origin, 96)
    f = torch.zeros(1, 3, 32 // stride, 48 // stride)
    whole = functional.interpolate(m, (96 // stride, 96 // stride), mode="bilinear")
    row, column = 8 // stride, 16 // stride
    expected = whole[:, :, row : row + 32 // stride, column : column + 48 // stride]
    torch.testing.assert_close(map_on_features(m, f, batch, stride), expected)

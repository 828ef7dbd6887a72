"""The orthogonal loss and its stand-in in the public code, in tiny numbers."""

import pytest
import torch

from physfed_ray.models.codes import feature_cosine_loss, orthogonal_loss, pairwise_cosine_max

CODE = torch.tensor([[3.0, 4.0]])
OTHERS = torch.tensor([[2.0, 0.0], [0.0, -0.5]])


def test_inner_products():
    # (3 * 2)^2 + (4 * -0.5)^2
    assert float(orthogonal_loss(CODE, OTHERS, normalise=False)) == pytest.approx(40.0)


def test_cosines():
    # 0.6^2 + (-0.8)^2
    assert float(orthogonal_loss(CODE, OTHERS, normalise=True)) == pytest.approx(1.0)


def test_cosines_cannot_be_won_by_shrinking():
    small = orthogonal_loss(0.01 * CODE, OTHERS, normalise=True)
    assert float(small) == pytest.approx(1.0)


def test_rows_are_averaged_and_a_lone_client_has_no_loss():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(orthogonal_loss(rows, OTHERS[:1], normalise=True)) == pytest.approx(0.5)
    assert float(orthogonal_loss(CODE, OTHERS[:0], normalise=True)) == 0.0


def test_feature_cosine():
    # channels (3, 4) and (4, 3) at one pixel: 24 / 25; (1, 0) and (-1, 0) at the other: |-1|
    own = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]]]])
    other = torch.tensor([[[[4.0, -1.0]], [[3.0, 0.0]]]])
    assert float(feature_cosine_loss(own, other)) == pytest.approx((0.96 + 1) / 2)


def test_pairwise_cosine():
    codes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 3.0]])
    assert pairwise_cosine_max(codes) == pytest.approx(0.5**0.5)
    assert pairwise_cosine_max(codes[:1]) == 0.0

"""DA-CLIP's losses, by hand."""

import math

import pytest
import torch

from physfed_ray.assets.da_clip.losses import (
    preference_ranking,
    rank_n_contrast,
    supervised_contrast,
)


def test_rank_n_contrast_of_three_images() -> None:
    places, labels = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0.0, 1.0, 3.0])
    e = [math.exp(-d / 2) for d in (1, 2, 3)]  # of the distances 1, 2 and 3, temperature 2
    expected = [
        -math.log(e[0] / (e[0] + e[2])),  # 0 and 1: both others are at least as far
        -math.log(e[2] / e[2]),  # 0 and 3: the farthest alone
        -math.log(e[0] / (e[0] + e[1])),  # 1 and 0
        -math.log(e[1] / e[1]),  # 1 and 3
        -math.log(e[2] / e[2]),  # 3 and 0
        -math.log(e[1] / (e[1] + e[2])),  # 3 and 1
    ]
    loss = float(rank_n_contrast(places, labels, 2.0))
    assert loss == pytest.approx(sum(expected) / 6, rel=1e-5)
    assert float(rank_n_contrast(places, labels[[1, 0, 2]], 2.0)) > loss  # another order


def test_two_images_at_one_place_leave_gradients_finite() -> None:
    places = torch.zeros(3, 2, requires_grad=True)
    rank_n_contrast(places, torch.tensor([0.0, 1.0, 2.0]), 2.0).backward()
    assert places.grad is not None
    assert bool(places.grad.isfinite().all())


def test_supervised_contrast_of_three_images_of_which_two_are_alike() -> None:
    v = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    e = {(0, 1): math.exp(0.0), (0, 2): math.exp(0.6 / 0.5), (1, 2): math.exp(0.8 / 0.5)}
    first = -math.log(e[0, 2] / (e[0, 1] + e[0, 2]))
    third = -math.log(e[0, 2] / (e[0, 2] + e[1, 2]))
    loss = supervised_contrast(v, torch.tensor([4, 7, 4]), 0.5)
    assert float(loss) == pytest.approx((first + third) / 2, rel=1e-5)
    assert float(supervised_contrast(v, torch.arange(3), 0.5)) == 0


def test_the_cleaner_image_shall_be_called_so() -> None:
    labels = torch.tensor([2.0, 0.0, 2.0])
    preference = torch.tensor([1.0, 0.5, -1.0])
    expected = (math.log1p(math.exp(0.5)) + math.log1p(math.exp(-1.5))) / 2
    assert float(preference_ranking(preference, labels)) == pytest.approx(expected, rel=1e-5)
    assert float(preference_ranking(preference, torch.ones(3))) == 0

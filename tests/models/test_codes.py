"""The orthogonal loss in tiny numbers."""

import pytest
import torch

from physfed_ray.models.codes import (
    gram_matrix,
    orthogonal_loss,
    orthogonal_loss_by_gram,
    pairwise_cosine_max,
)

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


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("clients", [2, 200])
def test_the_gram_matrix_gives_the_same_loss_and_gradient(normalise: bool, clients: int):
    rng = torch.Generator().manual_seed(1)
    others = torch.randn(clients - 1, 16, dtype=torch.float64, generator=rng)
    others[0] = 0
    losses, gradients = [], []
    gram = gram_matrix(others[:1], others[1:], normalise=normalise)
    for loss, known in ((orthogonal_loss, others), (orthogonal_loss_by_gram, gram)):
        code = torch.randn(3, 16, dtype=torch.float64, generator=rng.manual_seed(2))
        losses.append(loss(code.requires_grad_(), known, normalise=normalise))
        gradients.extend(torch.autograd.grad(losses[-1], code))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-13)


def test_pairwise_cosine():
    codes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 3.0]])
    assert pairwise_cosine_max(codes) == pytest.approx(0.5**0.5)
    assert pairwise_cosine_max(codes[:1]) == 0.0

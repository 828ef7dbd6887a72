"""A map and its adjoint, each the other's derivative."""

import torch
from torch.autograd import gradcheck, gradgradcheck

from physfed_ray.ct.linear import apply_linear

MATRIX = torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.0, 5.0]], dtype=torch.float64)


def apply(x: torch.Tensor) -> torch.Tensor:
    return apply_linear(x, lambda t: MATRIX @ t, lambda t: MATRIX.T @ t)


def test_the_derivative_is_the_adjoint_that_was_given() -> None:
    x = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    y = apply(x)
    assert y.tolist() == [-1.0, 7.0, -5.0]
    y.backward(torch.tensor([1.0, 1.0, 2.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [4.0, 8.0]


def test_it_can_be_differentiated_again() -> None:
    x = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    assert gradcheck(apply, x)
    assert gradgradcheck(lambda t: apply(t * t), x)


def test_nothing_is_kept_for_the_backward_pass() -> None:
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t), lambda t: t):
        apply(torch.ones(2, dtype=torch.float64, requires_grad=True))
    assert not kept

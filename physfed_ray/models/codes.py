"""What keeps protocol codes apart (Yang et al. 2025, eq. 8)."""

import torch
from torch import Tensor
from torch.nn import functional


def orthogonal_loss(code: Tensor, others: Tensor, *, normalise: bool) -> Tensor:
    """Return the sum over the other clients of the squared inner product with their code, eq. 8.

    Args:
        code: The client's own code, (1 or B, code_dim); the mean over its rows is taken.
        others: Codes of the other clients, (K - 1, code_dim), constants.
        normalise: Divide every code by its length first, so that products are cosines.
    """
    with torch.autocast(code.device.type, enabled=False):
        if normalise:
            code, others = functional.normalize(code, dim=1), functional.normalize(others, dim=1)
        return (code @ others.T).square().sum(1).mean()


def gram_matrix(*codes: Tensor, normalise: bool) -> Tensor:
    """Return the sum of the outer products of codes with themselves, (code_dim, code_dim).

    It is all that eq. 8 needs of the other clients, however many there are.

    Args:
        codes: Groups of codes, each (k, code_dim).
        normalise: Divide every code by its length first.
    """
    with torch.autocast(codes[0].device.type, enabled=False):
        if normalise:
            codes = tuple(functional.normalize(group, dim=1) for group in codes)
        return torch.stack([group.T @ group for group in codes]).sum(0)


def orthogonal_loss_by_gram(code: Tensor, gram: Tensor, *, normalise: bool) -> Tensor:
    """Return ``orthogonal_loss`` from the other codes' Gram matrix.

    sum_j (c . c_j)^2 = c^T (sum_j c_j c_j^T) c: a step costs code_dim^2 products instead of
    (K - 1) code_dim.

    Args:
        code: The client's own code, (1 or B, code_dim); the mean over its rows is taken.
        gram: ``gram_matrix`` of the other clients' codes, made with the same ``normalise``.
        normalise: Divide the own code by its length first.
    """
    with torch.autocast(code.device.type, enabled=False):
        if normalise:
            code = functional.normalize(code, dim=1)
        return (code @ gram * code).sum(1).mean()


def pairwise_cosine_max(codes: Tensor) -> float:
    """Return the largest |cosine| of two different codes among (K, code_dim), 0 for one code."""
    unit = functional.normalize(codes, dim=1)
    return float((unit @ unit.T).abs().fill_diagonal_(0).max())

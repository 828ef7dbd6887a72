"""Updates by their largest singular values: what FedKD sends instead of the whole matrix.

A tensor counts as the matrix of its first dimension by all others: (out, in * k * k) for a
convolution. The factors U, Sigma and V of rank r have r (rows + columns + 1) numbers.
"""

import torch
from torch import Tensor

RAW = -1
"""Stands for a rank where factors would be no smaller: the matrix is sent as it is."""


def compress(update: Tensor, energy: float) -> tuple[Tensor, int]:
    """Return an update as its receiver has it, and the rank that was sent.

    Args:
        update: (rows, ...) float32.
        energy: Share of the squared singular values to keep, (0, 1].

    Returns:
        The update, of the same shape, and the rank; ``RAW`` where it is unchanged.
    """
    matrix = update.flatten(1)
    if not matrix.isfinite().all():  # nothing to decompose; who sums it up will refuse it
        return update, RAW
    u, sigma, v = torch.linalg.svd(matrix, full_matrices=False)
    rank = rank_of_energy(sigma, energy)
    rows, columns = matrix.shape
    if numbers_of_rank(rows, columns, rank) >= rows * columns:
        return update, RAW
    return ((u[:, :rank] * sigma[:rank]) @ v[:rank]).view(update.shape), rank


def rank_of_energy(sigma: Tensor, energy: float) -> int:
    """Return the least number of singular values that keep a share of the energy.

    Args:
        sigma: Singular values, descending, (n,) float32.
        energy: Share of the sum of their squares, (0, 1].
    """
    kept = sigma.double().square().cumsum(0)
    if not kept[-1]:
        return 0
    return int(torch.searchsorted(kept, energy * kept[-1])) + 1


def numbers_of_rank(rows: int, columns: int, rank: int) -> int:
    """Return how many numbers a matrix is sent as; all of them where it is ``RAW``."""
    return rows * columns if rank == RAW else rank * (rows + columns + 1)

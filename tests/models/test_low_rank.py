"""Updates by their largest singular values, against the eigenvalues of their Gram matrix."""

import math

import numpy as np
import pytest
import torch

from physfed_ray.models.low_rank import RAW, compress, numbers_of_rank, rank_of_energy


def matrix(*shape: int, decay: float = 0.5) -> torch.Tensor:
    """Return a tensor whose singular values fall by a factor, as a matrix of its first dimension.

    Args:
        shape: The tensor's.
        decay: The factor.
    """
    rng = np.random.default_rng(3)
    rows, columns = shape[0], math.prod(shape[1:])
    count = min(rows, columns)
    u, v = (np.linalg.qr(rng.normal(size=(n, count)))[0] for n in (rows, columns))
    return torch.tensor((u * decay ** np.arange(count)) @ v.T, dtype=torch.float32).view(shape)


def test_rank_is_the_least_that_keeps_the_energy() -> None:
    sigma = torch.tensor([2.0, 1.0, 1.0, 0.0])  # squares 4, 1, 1 of 6
    for energy, rank in ((0.01, 1), (4 / 6 - 1e-9, 1), (0.67, 2), (5 / 6 - 1e-9, 2), (0.9, 3)):
        assert rank_of_energy(sigma, energy) == rank
    assert rank_of_energy(sigma, 1.0) == 3
    assert rank_of_energy(torch.zeros(4), 0.9) == 0


@pytest.mark.parametrize("energy", [0.5, 0.95, 0.98, 0.999])
@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (8, 6, 5, 5)])
def test_it_is_the_projection_on_the_largest_eigenvectors(
    shape: tuple[int, ...], energy: float
) -> None:
    update = matrix(*shape)
    whole = update.double().flatten(1).numpy()
    values, vectors = np.linalg.eigh(whole @ whole.T)
    kept = np.cumsum(values[::-1]) / values.sum()
    rank = int(np.sum(kept < energy)) + 1
    basis = vectors[:, ::-1][:, :rank]
    found, found_rank = compress(update, energy)
    assert found_rank == rank
    assert found.shape == update.shape
    np.testing.assert_allclose(found.flatten(1), basis @ basis.T @ whole, atol=1e-6)
    energy_found = float(found.double().square().sum() / update.double().square().sum())
    assert energy_found >= energy - 1e-6
    assert rank == 1 or kept[rank - 2] < energy


def test_all_of_the_energy_is_the_update_itself() -> None:
    for update in (torch.randn(5, 7), torch.randn(4, 2, 5, 5), matrix(6, 40)):
        found, _ = compress(update, 1.0)
        torch.testing.assert_close(found, update, atol=1e-6, rtol=1e-5)
    assert compress(torch.randn(5, 7), 1.0)[1] == RAW


def test_what_would_not_be_smaller_is_sent_as_it_is() -> None:
    assert numbers_of_rank(8, 30, 3) == 3 * (8 + 1 + 30)
    assert numbers_of_rank(8, 30, 0) == 0
    assert numbers_of_rank(8, 30, RAW) == 240
    for rank in range(1, 9):  # equal singular values: the energy asks for this rank
        sigma = torch.ones(8)
        assert rank_of_energy(sigma, rank / 8 - 1e-6) == rank
    orthogonal = torch.eye(8, 30)
    for rank in range(1, 9):
        found, sent = compress(orthogonal, rank / 8 - 1e-6)
        if rank * 39 < 240:
            assert sent == rank
            assert float(found.sum()) == pytest.approx(rank)
        else:
            assert sent == RAW
            assert torch.equal(found, orthogonal)


def test_no_update_has_no_rank() -> None:
    found, rank = compress(torch.zeros(3, 4, 5, 5), 0.95)
    assert rank == 0
    assert not found.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_passes_unchanged(bad: float) -> None:
    update = torch.ones(8, 30)
    update[3, 4] = bad
    found, rank = compress(update, 0.95)
    assert rank == RAW
    assert torch.equal(found.isfinite(), update.isfinite())

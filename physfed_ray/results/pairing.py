"""How sure a difference between two methods is: paired over seeds and clients."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

PairedScores = Mapping[tuple[int, str], float]


@dataclass(frozen=True)
class Pairing:
    """The first method minus the second, over the pairs that both have.

    Attributes:
        difference: Mean difference.
        wins: Pairs in which the first is higher.
        pairs: Number of pairs (seed and client).
        p: Two-sided p of Wilcoxon's signed-rank test, NaN with fewer than 6 pairs, where it could
            not fall below 0.05.
    """

    difference: float
    wins: int
    pairs: int
    p: float


def pair(first: PairedScores, second: PairedScores) -> Pairing | None:
    """Compare two methods seed by seed and client by client.

    Args:
        first: Mean scores by seed and client.
        second: Likewise.

    Returns:
        None when they share no pair.
    """
    common = sorted(set(first) & set(second))
    if not common:
        return None
    differences = np.array([first[key] - second[key] for key in common])
    enough = len(common) >= 6 and bool(np.any(differences != 0))
    p = float(wilcoxon(differences).pvalue) if enough else float("nan")
    return Pairing(float(differences.mean()), int((differences > 0).sum()), len(common), p)

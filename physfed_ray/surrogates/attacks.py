"""Who is it? Re-identification by the nearest amplitudes among other slices of the patients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from physfed_ray.surrogates.mixing import LEAST_AMPLITUDE


def amplitude_features(amplitudes: Tensor) -> Tensor:
    """Return what an attacker compares: logarithms, each frequency on the scale of its set.

    Args:
        amplitudes: Of low frequencies, (N, 1, h, w) float32.

    Returns:
        (N, h w) float32; 0 where a frequency is the same in the whole set.
    """
    found = amplitudes.flatten(1).clamp_min(LEAST_AMPLITUDE).log()
    spread = found.std(dim=0, correction=0)
    return torch.where(spread > 0, (found - found.mean(dim=0)) / spread.clamp_min(1e-6), 0.0)


def re_identified(surrogates: Tensor, gallery: Tensor, patients: Sequence[int]) -> float:
    """Return the share of surrogates whose nearest other slice is of the same patient.

    The attacker has slices of every patient, but never the one that is hidden; patients with a
    single slice, of whom it has nothing, are left out.

    Args:
        surrogates: Features of the surrogates, (N, d).
        gallery: Features of the patients' own slices, (N, d); number k is hidden in surrogate k.
        patients: Whose each slice is.
    """
    whose = torch.tensor(patients)
    distances = torch.cdist(surrogates.double(), gallery.double())
    distances.fill_diagonal_(torch.inf)
    right = whose[distances.argmin(dim=1)] == whose
    return float(right[torch.bincount(whose)[whose] > 1].double().mean())


def chance(patients: Sequence[int]) -> float:
    """Return the share that a random choice among the other slices would get right.

    Args:
        patients: Whose each slice is.
    """
    counts = torch.bincount(torch.tensor(patients)).double()
    counts = counts[counts > 1]
    total = len(patients) - 1
    return float((counts * (counts - 1) / total).sum() / counts.sum())

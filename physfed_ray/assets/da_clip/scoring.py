"""How well a DA-CLIP tells doses and regions of patients that it has not seen."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from physfed_ray.assets.base import Table


@dataclass(frozen=True)
class Seen:
    """What a network made of N slices.

    Attributes:
        dose: e_d, (N, d) float64.
        anatomy: e_a, (N, d') float64.
        quality: (N,) float64, 1 for the sentence "clean".
        reciprocal: log2 of the reciprocal dose, (N,) float64.
        regions: Region of each.
        patients: Patient of each.
    """

    dose: Tensor
    anatomy: Tensor
    quality: Tensor
    reciprocal: Tensor
    regions: tuple[str, ...]
    patients: tuple[str, ...]


def trained_on(seen: Seen, doses: Tensor) -> Tensor:
    """Say of each slice whether its dose is one of those of training (D,), log2 reciprocal."""
    gaps = (seen.reciprocal[:, None] - doses.cpu()[None]).abs()
    return gaps.min(1).values < 1e-5


def distinct(values: Tensor) -> list[float]:
    """Return each of some values once, ascending."""
    return sorted(set(values.tolist()))


def along_doses(seen: Seen, doses: Tensor) -> Tensor:
    """Return where slices lie along the direction in which the doses of training differ most, (N,).

    That is the first principal axis of the mean embeddings of those doses. Its sign says nothing.
    """
    known = trained_on(seen, doses)
    values = distinct(seen.reciprocal[known])
    means = torch.stack([seen.dose[known & (seen.reciprocal == value)].mean(0) for value in values])
    axis = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[0]
    place: Tensor = seen.dose @ axis
    return place


def dose_rank_correlation(seen: Seen, doses: Tensor) -> dict[str, float]:
    """Return |Spearman| of dose and place along the axis, of doses of training and of others.

    Args:
        seen: Held-out slices, some under doses of training.
        doses: Those of training, (D,), log2 of the reciprocal.
    """
    known = trained_on(seen, doses)
    place = along_doses(seen, doses)
    found = {}
    for name, rows in (("dose_rank", known), ("unseen_dose_rank", ~known)):
        if len(distinct(seen.reciprocal[rows])) >= 2:
            found[name] = abs(float(spearmanr(place[rows], seen.reciprocal[rows]).statistic))
    return found


def nearest_region_accuracy(seen: Seen) -> float:
    """Return how often the nearest slice of another patient is of the same region.

    Slices of a region that no other patient has are not counted; NaN where none is left.
    """
    patients, regions = np.array(seen.patients), np.array(seen.regions)
    other = torch.from_numpy(patients[:, None] != patients[None])
    same = torch.from_numpy(regions[:, None] == regions[None])
    possible = (same & other).any(1)
    nearest = (seen.anatomy @ seen.anatomy.T).masked_fill(~other, -torch.inf).argmax(1)
    hits = same[torch.arange(len(nearest)), nearest][possible].double()
    return float(hits.mean())


def doses_table(seen: Seen, doses: Tensor) -> Table:
    """Return the mean quality and place along the axis of the slices of each dose."""
    place, known = along_doses(seen, doses), trained_on(seen, doses)
    rows = []
    for value in distinct(seen.reciprocal):
        here = seen.reciprocal == value
        rows.append(
            (
                f"1/{2**value:.3g}",
                "yes" if bool(known[here].all()) else "no",
                int(here.sum()),
                round(float(seen.quality[here].mean()), 3),
                round(float(place[here].mean()), 3),
            )
        )
    return Table(
        "What the network says of the doses of held-out patients",
        ("dose", "trained on", "slices", "quality (clean against noisy)", "place along the axis"),
        tuple(rows),
    )

"""Which region of the body a slice shows, and how sure that is.

Three small networks look at what was measured (``regions.npz``, made by
``benchmarks/report_regions.py --write`` from phantoms and real CT). Where the mean of their
probabilities is below ``SURE`` for every region, or highest for no body at all, none is named.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from physfed_ray.reports.measurements import Measurements

REGIONS = ("head", "neck", "shoulders", "chest", "lung bases", "abdomen", "pelvis", "limb")
"""Classes of the networks, before a last one that is none of them."""
SURE = 0.55
"""Probability below which no region is named, chosen on patients left out of training: there 13%
of the slices are left open and 2% named wrong (docs/reports.md)."""
WEIGHTS = Path(__file__).with_suffix(".npz")
PARTS = ("lung", "gas", "fat", "soft", "solid", "bone", "contrast")
PLAIN = (
    "field_share", "width", "depth", "metal", "fat_rim", "enclosed", "marrow", "spine",
    "mediastinum", "symmetry",
)  # fmt: skip


def features(m: "Measurements") -> dict[str, float]:
    """Return the named numbers that the networks see, alike for a slice and its mirror image."""
    found = {name: float(getattr(m, name)) for name in PLAIN}
    found |= {
        "aspect": m.width / m.depth,
        "twins": float(m.bodies > 1),
        "small bodies": float(min(m.small_bodies, 2)),
        "soft hu": m.soft_hu,
        "bone peak": m.bone.peak_hu,
    }
    for name in PARTS:
        part = getattr(m, name)
        found |= {
            f"{name} share": part.share,
            f"{name} pieces": float(min(part.pieces, 20)),
            f"{name} largest": part.largest,
            f"{name} front": part.front,
            f"{name} one side": abs(part.right - 0.5),
        }
    return found | m.layout


@dataclass(frozen=True)
class Networks:
    """K networks with one hidden layer of H over F features, as arrays (float16 in the file).

    Attributes:
        low: Least value that training saw of each feature, (F,); what is below is taken for it.
        high: Largest value, (F,).
        mean: Mean of each feature, (F,).
        scale: Standard deviation of each feature, (F,).
        hidden: Weights (K, F, H).
        hidden_bias: (K, H).
        out: Weights (K, H, classes).
        out_bias: (K, classes).
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray

    def probabilities(self, values: np.ndarray) -> np.ndarray:
        """Return the mean probability of each class, (N, classes), of features (N, F)."""
        seen = (np.clip(values, self.low, self.high) - self.mean) / self.scale
        inner = np.tanh(np.einsum("nf,kfh->knh", seen, self.hidden) + self.hidden_bias[:, None])
        scores = np.einsum("knh,khc->knc", inner, self.out) + self.out_bias[:, None]
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        mean: np.ndarray = (odds / odds.sum(-1, keepdims=True)).mean(0)
        return mean


@cache
def read_networks(path: Path = WEIGHTS) -> Networks:
    """Return the networks of a file."""
    with np.load(path) as arrays:
        return Networks(
            **{name: arrays[name].astype(np.float64) for name in Networks.__dataclass_fields__}
        )


def named(probabilities: np.ndarray, sure: float = SURE) -> str | None:
    """Return the region of probabilities (classes,), None where none is sure enough."""
    best = int(probabilities.argmax())
    return REGIONS[best] if best < len(REGIONS) and probabilities[best] >= sure else None


def name_region(m: "Measurements") -> str | None:
    """Return the region that a slice shows, None where that cannot be told."""
    values = np.array([list(features(m).values())])
    return named(read_networks().probabilities(values)[0])

"""A perceptual and a Frechet distance on EfficientNet-Lite0: ``pd_efflite0``, ``fd_efflite0``.

They follow the ideas of LPIPS (R. Zhang et al. The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric. CVPR 2018) and of FID (M. Heusel et al. GANs Trained by a Two Time-Scale Update
Rule Converge to a Local Nash Equilibrium. NeurIPS 2017) and are neither: another network, no
weights learnt from human judgement, no full covariance. Their numbers compare with nobody else's.

The network sees what a reader sees: the image clipped to the window, which is [0, 1], as three
equal channels at its own size. Each slice goes through it with its reference and with no other one,
so that no number depends on what else is scored.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from physfed_ray.metrics.base import Context, Images, Metric, SetMetric
from physfed_ray.metrics.efflite0 import INSTALL, PACKAGE, trunk
from physfed_ray.metrics.pixelwise import in_window

FEWEST_SLICES = 2
_LEAST_LENGTH = 1e-10


class TrunkDistance(Metric):
    """A distance in the trunk's features."""

    better = "lower"
    clinical = True

    def missing(self) -> str:
        """Return what installs the weights where they are not."""
        return "" if find_spec(PACKAGE) else INSTALL


class PerceptualDistance(TrunkDistance):
    """Distance of a slice to its reference in the features of EfficientNet-Lite0; not LPIPS.

    At each pixel of five resolutions the channels are scaled to length 1. The squared length of
    the difference is averaged over the pixels, then over the resolutions, without learnt weights:
    0 for equal images, at most 4.
    """

    name, heading, decimals = "pd_efflite0", "pd_efflite0", 4
    source = "after R. Zhang et al. 2018"
    note = "pd_efflite0: perceptual distance on EfficientNet-Lite0, not LPIPS"

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the distance of each slice, (N,)."""
        return context.shared(seen_by_trunk, denoised, reference)[0]


class FrechetDistance(TrunkDistance, SetMetric):
    """Frechet distance of all slices to their references on EfficientNet-Lite0; not FID.

    The 1,280 features of the trunk's head, averaged over the image, are taken for independent
    Gaussians (see ``frechet_distance``). It belongs to the set: compare it between sets of equally
    many slices alone. It is NaN for fewer than two.
    """

    name, heading, decimals = "fd_efflite0", "fd_efflite0", 2
    source = "after Heusel et al. 2017"
    note = (
        "fd_efflite0: diagonal Frechet distance on EfficientNet-Lite0, one number for all slices "
        "of a client, not FID"
    )

    def features(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the features of each slice and its reference, (N, 2, 1280)."""
        return context.shared(seen_by_trunk, denoised, reference)[1]

    def of_set(self, features: NDArray[np.float64]) -> float:
        """Return the distance between (N, 2, 1280) features."""
        return frechet_distance(features[:, 0], features[:, 1])


def seen_by_trunk(
    denoised: Images, reference: Images, context: Context
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each slice's perceptual distance, (N,), and its features, (N, 2, 1280)."""
    distances, features = [], []
    for pair in zip(*context.shared(in_window, denoised, reference), strict=True):
        stages, pooled = trunk()(torch.stack(pair))
        distances.append(perceptual_distance([s[0] for s in stages], [s[1] for s in stages]))
        features.append(pooled.double().numpy())
    return np.array(distances), np.stack(features)


def perceptual_distance(x: Sequence[Tensor], y: Sequence[Tensor]) -> float:
    """Compare two images' features, stage by stage.

    Args:
        x: (channels, h, w) of each stage.
        y: Likewise.
    """
    stages = [(_unit(a) - _unit(b)).square().sum(dim=0).mean() for a, b in zip(x, y, strict=True)]
    return float(torch.stack(stages).mean())


def _unit(features: Tensor) -> Tensor:
    """Scale the channels of every pixel to length 1, in float64; no features stay none."""
    features = features.double()
    return features / features.square().sum(dim=0).sqrt().clamp_min(_LEAST_LENGTH)


def frechet_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the squared Frechet distance of two Gaussians with diagonal covariances.

    Between Gaussians it is ``|m - n|^2 + Tr(C + D - 2 (C D)^(1/2))`` (Dowson and Landau 1982). A
    full covariance of d features is singular for up to d samples, and a client has tens of slices
    for 1,280 features: its square root would be made of sampling noise. With the variances alone
    the trace is a sum over the features of ``(s - t)^2``, s and t the standard deviations (of
    samples, n - 1). What the features do together is not seen. The sampling noise of means and
    deviations adds a bias that falls as 1/n.

    Args:
        x: Features, (N, d).
        y: Features, (M, d).

    Returns:
        NaN where either has fewer than two samples.
    """
    if min(len(x), len(y)) < FEWEST_SLICES:
        return float("nan")
    means = x.mean(axis=0) - y.mean(axis=0)
    spreads = x.std(axis=0, ddof=1) - y.std(axis=0, ddof=1)
    return float(np.square(means).sum() + np.square(spreads).sum())

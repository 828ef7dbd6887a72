"""Denoising of a sinogram by what neighbouring views have in common (Sun et al. 2024).

t neighbouring views, a matrix of t rows and one column a bin, would be of rank one without noise
and without the object's turning. Of its singular values those are dropped that noise may explain.
After arXiv 2412.06135, in the reading of its abstract and of secondary pages: its threshold, the
number of views and whether groups overlap are not public. There, a value is kept while its ratio to
the group's first one exceeds a threshold (``relative_to="first"``).

The noise of a scan is known here, so that a value can also be compared with what noise alone would
give (``relative_to="noise"``): with many more bins than views all singular values of noise are
about the root of its variances' sum. This threshold adapts to the view and to the dose.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS
from physfed_ray.ct.noise_map import ray_variance
from physfed_ray.ct.protocol import Protocol

Reference = Literal["noise", "first"]
"""What a singular value is compared with: that of noise alone, or the group's first."""


def denoise_views(
    line_integrals: NDArray[np.float32],
    protocol: Protocol,
    views: int,
    threshold: float,
    *,
    sliding: bool = True,
    relative_to: Reference = "noise",
    electronic_noise: float = ELECTRONIC_NOISE_COUNTS,
) -> NDArray[np.float32]:
    """Return line integrals without what the views of a group do not have in common.

    Every view is the mean over the groups that hold it. Where ``views`` does not divide the views
    of the scan, groups that do not slide end with one that overlaps the one before it.

    Args:
        line_integrals: (B, views of the scan, bins), dimensionless.
        protocol: The scanner. On a full circle the last views neighbour the first ones.
        views: Views of a group, t.
        threshold: Singular values up to so many times the reference are dropped, but never the
            first one; 0 keeps all and changes nothing.
        sliding: Whether a group begins at every view, or only where the one before it ends.
        relative_to: What is the reference.
        electronic_noise: Standard deviation in counts.

    Returns:
        (B, views of the scan, bins) of the same type.

    Raises:
        ValueError: A group has fewer than one view, or more than the scan.
    """
    if not 1 <= views <= protocol.views:
        raise ValueError(f"groups of {views} views cannot be made of {protocol.views} views")
    if threshold == 0:
        return line_integrals.copy()
    groups = _groups(protocol, views, sliding)
    denoised = np.empty_like(line_integrals)
    for rows, out in zip(line_integrals, denoised, strict=True):
        values, vectors = _decompose(rows, groups)
        reference = values[:, -1:]
        if relative_to == "noise":
            reference = _noise(rows, groups, protocol.photons, electronic_noise)
        kept = values > threshold * reference
        kept[:, -1] = True
        project = np.einsum("gik,gk,gjk->gij", vectors, kept.astype(float), vectors, optimize=True)
        _apply(_band(project, groups, len(rows)).astype(rows.dtype), rows, out)
    return denoised


def _groups(protocol: Protocol, views: int, sliding: bool) -> NDArray[np.int64]:
    """Return the views of each group, (groups, t)."""
    count = protocol.views
    if sliding and "arc_deg" not in protocol.further:
        starts = np.arange(count)
    elif sliding:
        starts = np.arange(count - views + 1)
    else:
        starts = np.unique([*range(0, count - views, views), count - views])
    members: NDArray[np.int64] = (starts[:, None] + np.arange(views)) % count
    return members


def _decompose(
    rows: NDArray[np.float32], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return singular values (groups, t), ascending, and left singular vectors (groups, t, t).

    They come from the t x t products of views, which are the same for all groups that hold both:
    far cheaper than t x bins. That squares the values, whose ratios are then good to 1e-8 in
    float64; noise is at 1e-3.
    """
    exact, t = rows.astype(np.float64), groups.shape[1]
    products = np.stack([np.einsum("vb,vb->v", exact, np.roll(exact, -d, 0)) for d in range(t)], 1)
    one, other = np.indices((t, t))
    gram = products[groups[:, np.minimum(one, other)], abs(one - other)]
    squares, vectors = np.linalg.eigh(gram)
    return np.sqrt(np.maximum(squares, 0)), vectors


def _noise(
    rows: NDArray[np.float32], groups: NDArray[np.int64], photons: float, electronic_noise: float
) -> NDArray[np.float64]:
    """Return the singular value that noise alone would give each group, (groups, 1)."""
    measured = torch.from_numpy(rows.astype(np.float64))
    variance = ray_variance(measured, photons, electronic_noise).sum(1).numpy()
    level: NDArray[np.float64] = np.sqrt(variance[groups].mean(1, keepdims=True))
    return level


def _band(
    project: NDArray[np.float64], groups: NDArray[np.int64], views: int
) -> NDArray[np.float64]:
    """Return the weight of each view's neighbours in it, (2 t - 1, views), from t - 1 before it on.

    The mean over the groups that hold a view is linear in the views, so that the projections can be
    averaged in place of what they give.
    """
    t = groups.shape[1]
    one, other = np.indices((t, t))
    places = (other - one + t - 1) * views + groups[:, one]
    weights = np.bincount(places.ravel(), project.ravel(), (2 * t - 1) * views)
    return weights.reshape(2 * t - 1, views) / np.bincount(groups.ravel(), minlength=views)


def _apply(band: NDArray[np.float32], rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write the weighted sum of each view's neighbours, on a circle; weights across a gap are 0."""
    out[:] = 0
    half = len(band) // 2
    for shift, weights in enumerate(band, -half):
        out += weights[:, None] * np.roll(rows, -shift, 0)

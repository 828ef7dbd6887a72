"""What a scan explains of its own image: streaks of too few views, and the image beneath its noise.

A scanner with few views sees an image x otherwise than one with enough of them. Both are known as
operators, so that the difference is known for any image z, without a sinogram:

    streaks(z) = B A z - B' A' z

A and B are projection and FBP of the protocol, A' and B' those of the same scanner with enough
views, 2 pi n or more for n x n pixels. What the grid and the kernel do to z is in both terms and
cancels, which is not so for B A z - z. Of a low-dose image x with the noise map sigma:

    w0 = sqrt((0.5 s)^2 + r^2)            s median of sigma, r robust rms of streaks(x), in the body
    z  = TV(x; w0)
    a  = streaks(z)                                  the artefacts that are taken off
    t  = TV(x - a; sqrt((0.5 s)^2 + (0.3 r)^2))      the base

TV(x; w) = argmin_u |u - x|^2 / 2 + w TV(u) (Rudin, Osher and Fatemi 1992; Chambolle 2004). The
construction and its factors are this project's; the factors were chosen on validation patients.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import denoise_tv_chambolle

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, hu_to_mu
from physfed_ray.ct.fbp import default_kernel_mm
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import FULL_CIRCLE_DEG, Protocol

NOISE = 0.5
LEFT_OF_STREAKS = 0.3
BODY_HU = -500.0
"""Pixels above it count as body: tissue and bone, without lungs."""
_RMS_OF_MEDIAN = 1.4826  # of normal numbers: their root mean square over the median of |numbers|

Images = NDArray[np.float32]
"""(B, n, n) float32, HU."""


@dataclass(frozen=True)
class Explained:
    """What a scan explains of its images.

    Attributes:
        streaks: a, HU; all 0 for a scanner with enough views.
        base: t, HU.
        smooth: z, HU, the image without noise alone.
    """

    streaks: Images
    base: Images
    smooth: Images


def explain(
    hu: NDArray[np.floating],
    noise_hu: NDArray[np.floating],
    protocol: Protocol,
    kernel_mm: float | None = None,
) -> Explained:
    """Return the streaks and the base of low-dose images.

    Args:
        hu: (B, n, n), HU.
        noise_hu: The standard deviation of their noise in every pixel, likewise (``noise_map_hu``).
        protocol: The scanner.
        kernel_mm: As in ``ct.fbp``.
    """
    hu = np.asarray(hu, np.float32)
    body = hu > BODY_HU
    body[~body.any((1, 2))] = True  # where nothing is body, all of the image counts
    noise = np.array([np.median(n[where]) for n, where in zip(noise_hu, body, strict=True)])
    first = streaks_hu(hu, protocol, kernel_mm)
    rms = np.array(
        [
            _RMS_OF_MEDIAN * np.median(np.abs(found[where]))
            for found, where in zip(first, body, strict=True)
        ]
    )
    smooth = total_variation(hu, np.hypot(NOISE * noise, rms))
    streaks = streaks_hu(smooth, protocol, kernel_mm)
    base = total_variation(hu - streaks, np.hypot(NOISE * noise, LEFT_OF_STREAKS * rms))
    return Explained(streaks, base, smooth)


@torch.no_grad()
def streaks_hu(hu: Images, protocol: Protocol, kernel_mm: float | None = None) -> Images:
    """Return what a scan with the protocol's views shows beside one with enough, HU.

    Args:
        hu: (B, n, n) float32, HU: the object.
        protocol: The scanner.
        kernel_mm: As in ``ct.fbp``.
    """
    n = hu.shape[-1]
    enough = enough_views(n, protocol)
    if protocol.views >= enough:
        return np.zeros_like(hu)
    kernel_mm = default_kernel_mm(protocol, n) if kernel_mm is None else kernel_mm
    mu = torch.from_numpy(hu_to_mu(hu))[:, None]
    few, many = (
        scanner.fbp(scanner.project(mu), kernel_mm)
        for scanner in (FanBeam(protocol, n), FanBeam(replace(protocol, views=enough), n))
    )
    apart: Images = ((few - many)[:, 0] * (1000 / MU_WATER_PER_MM)).numpy()
    return apart


def enough_views(n: int, protocol: Protocol) -> int:
    """Return how many views of the protocol's arc show an n x n image without streaks.

    2 pi n of a full circle: half of them sample its rim as finely as the pixels do. A multiple of
    8, so that the operator can use the circle's symmetry.
    """
    return 8 * math.ceil(2 * math.pi * n * protocol.arc_deg / FULL_CIRCLE_DEG / 8)


def total_variation(hu: Images, weights: NDArray[np.floating]) -> Images:
    """Return TV(x; w) of images (B, n, n), each with its weight (B,), HU; at weight 0, x."""
    smooth: Callable[..., NDArray[np.floating]] = denoise_tv_chambolle
    made = np.array(hu, np.float32)
    for row, weight in enumerate(weights):
        if weight > 0:
            made[row] = smooth(np.array(hu[row], np.float64), weight=float(weight))
    return made

"""A scan: full-dose images in, low-dose images out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from physfed_ray.ct.attenuation import AIR_HU, hu_to_mu, inscribed_circle, mu_to_hu
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS, add_noise
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.projection import project
from physfed_ray.ct.protocol import Protocol


def scan(
    hu: NDArray[np.float32],
    protocol: Protocol,
    rngs: Sequence[np.random.Generator],
    electronic_noise: float = ELECTRONIC_NOISE_COUNTS,
) -> NDArray[np.float32]:
    """Scan images under a protocol and reconstruct them: project, add noise, FBP.

    Args:
        hu: As in ``measure``.
        protocol: The scanner.
        rngs: As in ``measure``.
        electronic_noise: Standard deviation in counts.

    Returns:
        (B or scans, n, n) float32, HU, not clipped; air outside the inscribed circle.
    """
    sinogram = measure(hu, protocol, rngs, electronic_noise)
    return reconstruct(sinogram, protocol, np.shape(hu)[-1])


def measure(
    hu: NDArray[np.float32],
    protocol: Protocol,
    rngs: Sequence[np.random.Generator],
    electronic_noise: float = ELECTRONIC_NOISE_COUNTS,
    *,
    cuda: bool | None = None,
) -> NDArray[np.float32]:
    """Return the line integrals that a detector measures of images: project, add noise.

    Args:
        hu: (B, n, n) float32, HU, on a grid over the protocol's field of view. Outside the
            inscribed circle the object is taken for air. One image may be scanned many times.
        protocol: The scanner.
        rngs: One random stream for each slice, or for each scan of a single image.
        electronic_noise: Standard deviation in counts.
        cuda: Whether to project on the GPU, as in ``project``; a curved detector always on the CPU.

    Returns:
        (B or scans, views, bins) float32, dimensionless.
    """
    hu = np.asarray(hu, dtype=np.float32)
    outside = ~inscribed_circle(hu.shape[-1])
    mu = hu_to_mu(np.where(outside, np.float32(AIR_HU), hu))
    if protocol.detector == "flat":
        sinogram = project(mu, protocol, cuda=cuda)
    else:  # ASTRA has none
        curved = FanBeam(protocol, hu.shape[-1])
        sinogram = curved.project(torch.from_numpy(mu)[:, None])[:, 0].numpy()
    if len(hu) == 1:
        sinogram = np.repeat(sinogram, len(rngs), axis=0)
    for line_integrals, rng in zip(sinogram, rngs, strict=True):
        line_integrals[:] = add_noise(line_integrals, protocol.photons, rng, electronic_noise)
    return sinogram


def reconstruct(
    line_integrals: NDArray[np.float32], protocol: Protocol, image_size: int
) -> NDArray[np.float32]:
    """Return images by FBP, (B, n, n) float32, HU, not clipped.

    Args:
        line_integrals: (B, views, bins) float32, dimensionless.
        protocol: The scanner.
        image_size: n of the images.
    """
    with torch.inference_mode():
        mu = fbp(torch.from_numpy(line_integrals), protocol, image_size)
    return mu_to_hu(mu.numpy())

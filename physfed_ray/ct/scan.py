"""A scan: full-dose images in, low-dose images out."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from physfed_ray.ct.attenuation import AIR_HU, hu_to_mu, inscribed_circle, mu_to_hu
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.noise import add_noise
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.projection import project
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.simulation import Simulation, fine_detector


def scan(
    hu: NDArray[np.float32],
    protocol: Protocol,
    rngs: Sequence[np.random.Generator],
    simulation: Simulation,
) -> NDArray[np.float32]:
    """Scan objects under a protocol and reconstruct them: project, add noise, FBP.

    Args:
        hu: As in ``expect``.
        protocol: The scanner.
        rngs: As in ``measure``.
        simulation: How scans are simulated.

    Returns:
        (B or scans, n, n) float32, HU, not clipped; air outside the inscribed circle.
    """
    expected = expect(hu, protocol, simulation)
    return reconstruct(measure(expected, protocol, rngs, simulation), protocol, simulation)


def expect(
    hu: NDArray[np.float32],
    protocol: Protocol,
    simulation: Simulation,
    *,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return the line integrals that a detector without noise would measure.

    A bin counts what several rays bring, so that it sees -log of their mean transmission. Where the
    object is the image itself (``object_scale`` 1), its pixels are squares of one value, as ASTRA's
    ``line_fanflat`` takes them; else the object is what linear interpolation makes of its samples.

    Args:
        hu: (B, N, N) float32, HU: objects on a grid over the protocol's field of view, N the
            simulation's ``object_size``. Outside the inscribed circle they are taken for air.
        protocol: The scanner.
        simulation: How scans are simulated.
        device: Where ``FanBeam`` projects, ``cpu`` or ``cuda``; ASTRA projects on the CPU.

    Returns:
        (B, views, bins) float32, dimensionless.
    """
    hu = np.asarray(hu, dtype=np.float32)
    outside = ~inscribed_circle(hu.shape[-1])
    mu = hu_to_mu(np.where(outside, np.float32(AIR_HU), hu))
    rays = simulation.rays(protocol)
    fine = fine_detector(protocol, rays)
    if simulation.object_scale == 1 and protocol.detector == "flat":
        paths = torch.from_numpy(project(mu, fine, cuda=False))
    else:
        paths = _project(mu, fine, device)
    if rays > 1:
        bins = paths.view(*paths.shape[:-1], protocol.bins, rays)
        paths = math.log(rays) - (-bins).logsumexp(-1)
    return paths.cpu().numpy()


def _project(mu: NDArray[np.float32], protocol: Protocol, device: str) -> Tensor:
    """Return line integrals (B, views, bins) by ``FanBeam``, on its device."""
    with torch.inference_mode():
        images = torch.from_numpy(mu)[:, None].to(device)
        return FanBeam(protocol, mu.shape[-1]).project(images)[:, 0]


def measure(
    expected: NDArray[np.float32],
    protocol: Protocol,
    rngs: Sequence[np.random.Generator],
    simulation: Simulation,
) -> NDArray[np.float32]:
    """Return line integrals as the detector measures them: with noise.

    Args:
        expected: (B, views, bins) float32, dimensionless, of ``expect``. One object may be scanned
            many times.
        protocol: The scanner.
        rngs: One random stream for each slice, or for each scan of a single object.
        simulation: How scans are simulated.

    Returns:
        (B or scans, views, bins) float32, dimensionless.
    """
    if len(expected) == 1:
        expected = np.repeat(expected, len(rngs), axis=0)
    noise = simulation.electronic_noise
    pairs = zip(expected, rngs, strict=True)
    return np.stack([add_noise(paths, protocol.photons, rng, noise) for paths, rng in pairs])


def reconstruct(
    line_integrals: NDArray[np.floating[Any]],
    protocol: Protocol,
    simulation: Simulation,
    *,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return images by FBP, (B, n, n) float32, HU, not clipped.

    Args:
        line_integrals: (B, views, bins) float32, or in half precision as files hold them.
        protocol: The scanner.
        simulation: How scans are simulated.
        device: Where to compute, ``cpu`` or ``cuda``.
    """
    with torch.inference_mode():
        measured = torch.from_numpy(np.asarray(line_integrals, np.float32)).to(device)
        size, kernel_mm = simulation.image_size, simulation.kernel_mm(protocol)
        mu = fbp(measured, protocol, size, kernel_mm)
    return mu_to_hu(mu.cpu().numpy())

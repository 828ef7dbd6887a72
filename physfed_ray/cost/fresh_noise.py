"""What fresh noise costs: the time of a round's scans, memory of a host, and room on the disk."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import measure, reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.device import torch_threads
from physfed_ray.experiment import Experiment
from physfed_ray.federation.client.fresh import SLICES_AT_ONCE

SCANNING_SINOGRAMS = 6
SCANNING_BYTES = 50e6
"""Memory while slices are scanned: sinograms of those at once, and the rest (measured, paper-1 and
paper-2 at 256 pixels)."""


@dataclass(frozen=True)
class FreshCost:
    """Cost of new noise for the training slices, 0 where noise is fixed.

    Attributes:
        seconds: Time on this machine to scan all training slices once, with the experiment's
            threads and in one process.
        host_bytes: Memory that a host needs for it.
        stored_bytes: Line integrals of all training slices; they lie in the cache and again in the
            clients' files.
    """

    seconds: float = 0.0
    host_bytes: float = 0.0
    stored_bytes: float = 0.0


FIXED = FreshCost()
"""The cost where noise is fixed."""


def fresh_cost(experiment: Experiment, slices: Sequence[int], *, pooled: bool) -> FreshCost:
    """Time scans under the first client's protocol, and scale them to the others'.

    The time of noise follows the number of rays, that of the FBP the number of views.

    Args:
        experiment: Its clients, simulation and threads are used.
        slices: Training slices of each client.
        pooled: Whether one host trains on the slices of all.
    """
    if experiment.data.noise == "fixed":
        return FIXED
    protocols = [client.protocol for client in experiment.clients]
    rays = [protocol.views * protocol.bins for protocol in protocols]
    noise, image = _time(protocols[0], experiment.data.simulation, experiment.training.threads)
    seconds = [
        count * (noise * of / rays[0] + image * protocol.views / protocols[0].views)
        for count, of, protocol in zip(slices, rays, protocols, strict=True)
    ]
    images = 4 * experiment.data.image_size**2 * (sum(slices) if pooled else max(slices))
    scanning = SCANNING_SINOGRAMS * SLICES_AT_ONCE * 4 * max(rays) + SCANNING_BYTES
    return FreshCost(
        seconds=sum(seconds),
        host_bytes=scanning + 2 * images,  # parts and the whole
        stored_bytes=4 * sum(c * of for c, of in zip(slices, rays, strict=True)),
    )


def _time(protocol: Protocol, simulation: Simulation, threads: int) -> tuple[float, float]:
    """Return the seconds of a slice: those of its noise, and those of its reconstruction."""
    expected = np.full((SLICES_AT_ONCE, protocol.views, protocol.bins), 2.0, np.float32)
    rngs = [np.random.default_rng(k) for k in range(SLICES_AT_ONCE)]
    with torch_threads(threads):
        reconstruct(expected[:1], protocol, simulation)  # loads what the first call loads
        began = time.perf_counter()
        measured = measure(expected, protocol, rngs, simulation)
        drawn = time.perf_counter()
        reconstruct(measured, protocol, simulation)
        done = time.perf_counter()
    return (drawn - began) / SLICES_AT_ONCE, (done - drawn) / SLICES_AT_ONCE

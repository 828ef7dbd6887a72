"""What a detector adds to line integrals: photon statistics and electronic noise."""

import math

import numpy as np
from numpy.typing import NDArray

ELECTRONIC_NOISE_COUNTS = math.sqrt(10.0)
"""Default electronic noise: standard deviation in counts, a variance of 10 counts^2."""

FLOOR_COUNTS = 1.0
"""The fewest counts a reading is taken for, so that its logarithm exists."""

_RAYS_AT_ONCE = 16384  # 128 kB in float64: what is computed in between stays in the cache


def add_noise(
    line_integrals: NDArray[np.floating],
    photons: float,
    rng: np.random.Generator,
    electronic_noise: float = ELECTRONIC_NOISE_COUNTS,
) -> NDArray[np.float32]:
    """Return line integrals as a photon-counting detector with electronic noise measures them.

    counts ~ Poisson(photons exp(-p)) + Normal(0, electronic_noise^2), at least one count.

    Args:
        line_integrals: p, any shape, dimensionless.
        photons: Photons sent along each ray, I0.
        rng: The random stream of this slice; what it yields depends on nothing else.
        electronic_noise: Standard deviation in counts; 0 for none.
    """
    clean = np.asarray(line_integrals)
    noisy = np.empty(clean.shape, np.float32)
    rays, readings = clean.reshape(-1), noisy.reshape(-1)
    for start in range(0, clean.size, _RAYS_AT_ONCE):
        part = slice(start, start + _RAYS_AT_ONCE)
        counts = rng.poisson(photons * np.exp(-rays[part].astype(np.float64)))
        seen = counts + electronic_noise * rng.standard_normal(len(counts))
        readings[part] = -np.log(np.maximum(seen, FLOOR_COUNTS) / photons)
    return noisy

"""What a detector adds to line integrals: photon statistics and electronic noise."""

import math

import numpy as np
from numpy.typing import NDArray

ELECTRONIC_NOISE_COUNTS = math.sqrt(10.0)
"""Default electronic noise: standard deviation in counts, a variance of 10 counts^2."""

FLOOR_COUNTS = 1.0
"""The fewest counts a reading is taken for, so that its logarithm exists."""


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
    counts = rng.poisson(photons * np.exp(-np.asarray(line_integrals, dtype=np.float64)))
    readings = counts + electronic_noise * rng.standard_normal(counts.shape)
    noisy: NDArray[np.float32] = -np.log(np.maximum(readings, FLOOR_COUNTS) / photons)
    return noisy.astype(np.float32)

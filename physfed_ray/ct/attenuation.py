"""Hounsfield units and attenuation, and the circle that every protocol sees."""

import numpy as np
from numpy.typing import NDArray

MU_WATER_PER_MM = 0.0192
"""Attenuation of water at the effective energy of the scans, per mm."""

AIR_HU = -1000.0


def hu_to_mu(hu: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return attenuation per mm, float32, never below 0, for an array in HU."""
    mu = np.asarray(hu, dtype=np.float32) * np.float32(MU_WATER_PER_MM / 1000)
    mu += np.float32(MU_WATER_PER_MM)
    np.maximum(mu, 0, out=mu)
    return mu


def mu_to_hu(mu: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return HU, float32, for an array of attenuation per mm (negative values are kept)."""
    hu = np.asarray(mu, dtype=np.float32) * np.float32(1000 / MU_WATER_PER_MM)
    hu += np.float32(AIR_HU)
    return hu


def inscribed_circle(image_size: int) -> NDArray[np.bool_]:
    """Return the (image_size, image_size) mask of pixel centres inside the inscribed circle."""
    centre = np.arange(image_size) - (image_size - 1) / 2
    circle: NDArray[np.bool_] = centre[:, None] ** 2 + centre**2 <= (image_size / 2) ** 2
    return circle

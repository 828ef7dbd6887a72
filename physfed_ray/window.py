"""A window of Hounsfield units, and the scale on which networks see it."""

import numpy as np
from numpy.typing import NDArray

Window = tuple[float, float]
"""Low and high end in HU."""


def normalise(hu: np.ndarray, window_hu: Window) -> NDArray[np.float32]:
    """Map HU to float32 in [0, 1] of the window, clipped."""
    low, high = window_hu
    return np.clip((hu - low) / (high - low), 0.0, 1.0).astype(np.float32)


def denormalise(images: np.ndarray, window_hu: Window) -> NDArray[np.float32]:
    """Map values in [0, 1] of the window back to float32 HU."""
    low, high = window_hu
    return (images * (high - low) + low).astype(np.float32)

"""CT slices as pictures: Hounsfield units through windows to RGB."""

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator

WINDOWS_HU: dict[str, tuple[float, float]] = {
    "lung": (-1350.0, 150.0),
    "soft": (-160.0, 240.0),
    "bone": (-500.0, 1300.0),
}
"""Lower and upper end: centres -600, 40 and 400, widths 1500, 400 and 1800 HU."""


def _rising(window: tuple[float, float]) -> tuple[float, float]:
    if window[0] >= window[1]:
        raise ValueError(f"the window's upper end must lie above {window[0]:g} HU")
    return window


Window = Annotated[tuple[float, float], AfterValidator(_rising)]
Channels = Literal["lung_soft_bone", "lung", "soft", "bone"] | Window
"""Three windows as red, green and blue, or one window as grey."""


def to_rgb(hu: np.ndarray, channels: Channels) -> np.ndarray:
    """Return the pictures (B, n, n, 3) uint8 of B slices (B, n, n) in HU.

    A value at or below a window's lower end is 0, at or above its upper end 255; what is not a
    number counts as air.
    """
    if channels == "lung_soft_bone":
        windows = [WINDOWS_HU[name] for name in ("lung", "soft", "bone")]
    else:
        windows = 3 * [WINDOWS_HU[channels] if isinstance(channels, str) else channels]
    rgb = np.empty((*hu.shape, 3), np.uint8)
    for channel, (low, high) in enumerate(windows):
        grey = np.clip((hu - low) / (high - low), 0, 1)
        rgb[..., channel] = np.rint(255 * np.nan_to_num(grey))
    return rgb

"""CT slices as pictures: Hounsfield units through windows to RGB."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator

WINDOWS_HU: dict[str, tuple[float, float]] = {
    "lung": (-1350.0, 150.0),
    "soft": (-160.0, 240.0),
    "bone": (-500.0, 1300.0),
}
"""Lower and upper end: centres -600, 40 and 400, widths 1500, 400 and 1800 HU; in the order of red,
green and blue."""


THREE_WINDOWS = "lung_soft_bone"


def _name_or_window(value: Any) -> Any:
    # One check for both kinds: a union's own errors would name its members.
    if isinstance(value, str) and value in (THREE_WINDOWS, *WINDOWS_HU):
        return value
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
            return (low, high)
    raise ValueError(
        f"must be {THREE_WINDOWS}, {', '.join(WINDOWS_HU)} or [low, high] in HU, not {value}"
    )


Channels = Annotated[
    Literal["lung_soft_bone", "lung", "soft", "bone"] | tuple[float, float],
    BeforeValidator(_name_or_window),
]
"""Three windows as red, green and blue, or one window as grey."""


def to_rgb(hu: np.ndarray, channels: Channels) -> np.ndarray:
    """Return the pictures (B, n, n, 3) uint8 of B slices (B, n, n) in HU.

    A value at or below a window's lower end is 0, at or above its upper end 255; what is not a
    number counts as air.
    """
    if channels == THREE_WINDOWS:
        windows = list(WINDOWS_HU.values())
    else:
        windows = 3 * [WINDOWS_HU[channels] if isinstance(channels, str) else channels]
    rgb = np.empty((*hu.shape, 3), np.uint8)
    for channel, (low, high) in enumerate(windows):
        grey = np.clip((hu - low) / (high - low), 0, 1)
        rgb[..., channel] = np.rint(255 * np.nan_to_num(grey))
    return rgb

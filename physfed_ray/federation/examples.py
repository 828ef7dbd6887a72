"""The slices of a run's last evaluation that are kept, for its pages to show."""

import numpy as np

from physfed_ray.window import Window, denormalise

PICTURED = 32
"""Clients whose images are kept for the page; evenly spaced where there are more."""
SHOWN = 24
"""Slices that the page's viewer shows, of all clients together."""
STACK = "_slices"
"""Ends the name of several slices, (K, n, n) whole HU, int16: ``low_slices`` beside ``low``."""
_HU_LIMIT = 32767


def slices_each(clients: int, unseen: int) -> int:
    """Return how many slices of each client the viewer shows, beside one of an unseen protocol."""
    return max(1, (SHOWN - min(unseen, SHOWN // 3)) // max(1, clients))


def spread(count: int, most: int) -> tuple[int, ...]:
    """Choose at most so many of ``count`` things: the middle of each of as many equal parts."""
    parts = min(count, most)
    return tuple((2 * k + 1) * count // (2 * parts) for k in range(parts))


def kept(images: dict[str, np.ndarray], each: int, window_hu: Window) -> dict[str, np.ndarray]:
    """Choose what is kept of a client's images.

    Args:
        images: By name, (N, n, n) float32 in [0, 1] of the window.
        each: How many slices; with one it is the middle one alone.
        window_hu: HU that 0 and 1 stand for.

    Returns:
        By name the middle slice (n, n) as it is, and by name with ``STACK`` the slices, rounded
        to whole HU, which take half the room.
    """
    found = {name: image[len(image) // 2] for name, image in images.items()}
    if each > 1:
        for name, image in images.items():
            hu = denormalise(image[list(spread(len(image), each))], window_hu)
            found[name + STACK] = np.rint(hu).clip(-_HU_LIMIT, _HU_LIMIT).astype(np.int16)
    return found

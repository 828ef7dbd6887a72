"""Where the body is on a smoothed slice: what is large and no air, with what it encloses."""

import numpy as np
from scipy import ndimage

BODY_ABOVE_HU = -350.0
LUNG_ABOVE_HU = -940.0
"""Air in lung holds blood and tissue: what is emptier on average is gas, or the room's air."""
TWIN_SHARE = 0.4
"""A second body of at least this share of the largest is another limb, a smaller one is an arm."""
SMALL_BODY_SHARE = 0.02
SPECK_PIXELS = 3
BRIDGE_PIXELS = 2
"""What is at most twice as thick as this may be where two bodies touch."""


def find_bodies(image: np.ndarray) -> tuple[np.ndarray, int, int] | None:
    """Return the mask of the bodies, how many are alike in size, and how many are small."""
    tissue = ndimage.binary_opening(image > BODY_ABOVE_HU)
    labels, count = ndimage.label(tissue)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = np.flatnonzero(sizes >= max(SMALL_BODY_SHARE * sizes.max(), 20))
    if not kept.size:
        return None
    twins = int((sizes[kept] >= TWIN_SHARE * sizes.max()).sum())
    # The small ones are counted but not measured: an arm would shift every place of the trunk.
    large = kept[sizes[kept] >= TWIN_SHARE * sizes.max()]
    body = _filled(np.isin(labels, large), image)
    return body, twins, len(kept) - twins


def _filled(tissue: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return bodies with what they enclose, but not the air between arms, trunk and table.

    Such air is that of the room, and what closes it off is thin; a hole that opens when thin
    bridges are cut is outside, unless it holds lung.
    """
    body: np.ndarray = ndimage.binary_fill_holes(tissue)
    holes, count = ndimage.label(body & ~tissue)
    if count == 0:
        return body
    cut = ndimage.binary_fill_holes(ndimage.binary_opening(tissue, iterations=BRIDGE_PIXELS))
    for number in range(1, count + 1):
        hole = holes == number
        if hole.sum() < SPECK_PIXELS**2 or cut[hole].mean() > 0.5:
            continue
        if np.median(image[hole]) < LUNG_ABOVE_HU:
            body &= ~hole
    return body

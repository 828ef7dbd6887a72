"""Where the body is in a slice: the mask of it, and a circle around it."""

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

BODY_THRESHOLD_HU = -300.0
"""Between foam, clothing and lung (below) and fat and skin (above)."""
OPENING_RADIUS_MM = 4.0
"""Half the thickness below which a sheet is table, blanket or sleeve and not body."""
SMALLEST_BODY = 0.03
"""Parts below this fraction of the largest one's area are no bodies (an arm has about 0.05)."""


def body_mask(hu: np.ndarray, spacing_mm: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Return the body or bodies (two legs, arms) with all air and lung inside them.

    Thin sheets (table tops, blankets, clothing) do not survive the opening and small parts (head
    rests, tubes beside the patient) are dropped.

    Args:
        hu: (h, w), HU.
        spacing_mm: Distance between rows and between columns, mm.

    Returns:
        (h, w) bool.
    """
    dense = ndimage.uniform_filter(hu.astype(np.float32), size=3) > BODY_THRESHOLD_HU
    core = _erode(dense, OPENING_RADIUS_MM, spacing_mm)
    # The opening also rounds corners off and thins what is narrow (nose, ears, skin folds): growing
    # by half a radius more gives back what touches the rest of the body.
    grown = dense & _dilate(core, 1.5 * OPENING_RADIUS_MM, spacing_mm)
    filled = ndimage.binary_fill_holes(grown)
    labels, count = ndimage.label(filled)
    if count == 0:
        return np.zeros(hu.shape, bool)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    large = areas >= SMALLEST_BODY * areas.max()
    large[0] = False
    kept: np.ndarray = large[labels]
    return kept


def enclosing_circle(body: np.ndarray, spacing_mm: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centre (mm from the frame's top left corner) and radius (mm) of a circle around it.

    Badoiu and Clarkson 2003: step towards the farthest point, by ever smaller steps. The radius is
    measured at the end, so that the circle always encloses the body.
    """
    outline = np.argwhere(body & ~ndimage.binary_erosion(body))
    corners = (outline[:, None, :] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).reshape(-1, 2)
    points = corners * spacing_mm
    # A body has at least one pixel, whose four corners do not lie on a line.
    points = points[ConvexHull(points).vertices]
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    for step in range(1, 500):
        farthest = points[np.argmax(((points - centre) ** 2).sum(axis=1))]
        centre = centre + (farthest - centre) / (step + 1)
    return centre, float(np.sqrt(((points - centre) ** 2).sum(axis=1).max()))


def _erode(mask: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Shrink by a disk; the outside of the frame counts as body, so crops keep their edges."""
    padded = np.pad(mask, 1, mode="edge")
    eroded: np.ndarray = ndimage.distance_transform_edt(padded, spacing_mm)[1:-1, 1:-1] > radius_mm
    return eroded


def _dilate(mask: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Grow by a disk."""
    if not mask.any():
        return mask
    grown: np.ndarray = ndimage.distance_transform_edt(~mask, spacing_mm) <= radius_mm
    return grown

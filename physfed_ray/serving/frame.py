"""What of a slice is no image: the flat rest of the frame beyond the field of view."""

import numpy as np

SMALLEST_PART = 1e-3
"""A corner of one value is no image from this part of the frame on; noise makes no such area."""


def beyond_the_field(hu: np.ndarray) -> np.ndarray:
    """Mark flat areas that begin in a corner of the frame, (N, h, w) -> (N, h, w) bool.

    Scanners fill what lies outside the circle of the reconstruction with one value.
    """
    return np.stack([_corners(image) for image in hu])


def _corners(image: np.ndarray) -> np.ndarray:
    from scipy import ndimage  # Most slices never come here.

    mask = np.zeros(image.shape, bool)
    last = (image.shape[0] - 1, image.shape[1] - 1)
    for row, column in ((0, 0), (0, last[1]), (last[0], 0), last):
        inner = 1 if row == 0 else row - 1, 1 if column == 0 else column - 1
        value = image[row, column]
        if mask[row, column] or image[row, inner[1]] != value or image[inner[0], column] != value:
            continue
        labels, _ = ndimage.label(image == value)
        area = labels == labels[row, column]
        if area.mean() >= SMALLEST_PART:
            mask |= area
    return mask

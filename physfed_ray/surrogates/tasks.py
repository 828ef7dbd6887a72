"""What is diagnosed: the region of the body, or whether a lesion was planted."""

from collections.abc import Sequence

import numpy as np

from physfed_ray.errors import PhysFedError
from physfed_ray.seeds import generator
from physfed_ray.surrogates.file import Lesion
from physfed_ray.surrogates.images import Slices

NO_LABEL = -1
LESION = ("none", "lesion")


def region_labels(
    slices: Slices, train: Sequence[int], test: Sequence[int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the region of every slice as a number, and the regions' names.

    A region counts where training and test both show it.

    Args:
        slices: All slices.
        train: Numbers of the training slices.
        test: Numbers of the test slices.

    Returns:
        (N,) int64, -1 for a slice without a region that counts; names by number.

    Raises:
        PhysFedError: Fewer than two regions count.
    """
    shown = [{slices.regions[k] for k in part} - {""} for part in (train, test)]
    names = tuple(sorted(shown[0] & shown[1]))
    if len(names) < 2:
        raise PhysFedError(
            f"tasks: region needs two regions that training and test patients both show, and there "
            f"is {names[0] if names else 'none'}; give more patients, or take 'lesion'"
        )
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers.get(r, NO_LABEL) for r in slices.regions], np.int64), names


def plant_lesions(slices: Slices, lesion: Lesion, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Plant a disc of a constant contrast in half of the slices, wholly inside the body.

    Args:
        slices: All slices.
        lesion: Its radius and contrast.
        seed: Decides where, and in which slices.

    Returns:
        (N, n, n) float32 HU, and (N,) int64: 1 with a lesion, 0 without, -1 for a slice whose body
        is too small for one.
    """
    hu, labels = slices.hu.copy(), np.full(len(slices), NO_LABEL, np.int64)
    places = [_places(b, lesion.radius_mm / mm)
              for b, mm in zip(slices.body, slices.pixel_mm, strict=True)]  # fmt: skip
    usable = [k for k, found in enumerate(places) if len(found)]
    rng = generator(seed, "lesion")
    order = rng.permutation(usable)
    for turn, k in enumerate(order):
        labels[k] = turn % 2
        if labels[k]:
            middle = places[k][rng.integers(len(places[k]))]
            hu[k] += lesion.contrast_hu * disc(
                hu.shape[1], middle, lesion.radius_mm, slices.pixel_mm[k]
            )
    return hu, labels


def disc(size: int, middle: np.ndarray, radius_mm: float, pixel_mm: float) -> np.ndarray:
    """Return how much of each pixel a disc covers, (n, n) float32 in [0, 1].

    Args:
        size: Pixels along each side, n.
        middle: Row and column of its centre.
        radius_mm: Its radius, mm.
        pixel_mm: Pixel length, mm.
    """
    rows, columns = np.ogrid[:size, :size]
    distance = np.hypot(rows - middle[0], columns - middle[1])
    covered: np.ndarray = np.clip(radius_mm / pixel_mm - distance + 0.5, 0, 1).astype(np.float32)
    return covered


def _places(body: np.ndarray, radius: float) -> np.ndarray:
    """Return the pixels, (k, 2), around which a disc of a radius in pixels lies in the body."""
    from scipy import ndimage  # not for short commands

    return np.argwhere(ndimage.distance_transform_edt(body) > radius + 1)

"""What can be measured on one CT slice without knowing the pixel size: shares, places, counts.

Everything is measured on a smoothed copy of the slice on a grid of one size, so that neither the
noise of a low-dose scan nor the number of its pixels changes it much. Lengths are fractions of the
field of view's diameter, areas are fractions of the body, sides are the patient's (the patient's
right is on the left of the image, the front on top).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from physfed_ray.reports.bodies import LUNG_ABOVE_HU, SPECK_PIXELS, find_bodies
from physfed_ray.reports.layout import layout

WORKING_SIZE = 128
"""Slices are resampled to this many pixels along each side before anything is measured."""
SMOOTHING_PIXELS = 0.8

GAS_BELOW_HU = -400.0
FAT_HU = (-160.0, -25.0)
SOFT_HU = (-25.0, 150.0)
BONE_PEAK_HU = 280.0
UNIFORM_RATIO = 0.72
CONTRAST_MAX_HU = 650.0
METAL_ABOVE_HU = 1900.0

LUNG_SHARE = 0.012
"""Aerated regions smaller than this share of the body count as gas, not as lung."""


@dataclass(frozen=True)
class Part:
    """One tissue: how much of the body it is, where, and in how many pieces.

    Attributes:
        share: Area as a fraction of the body.
        right: Fraction of that area in the patient's right half.
        front: Fraction of that area in the front half.
        pieces: Connected pieces, specks left out.
        largest: Area of the largest piece as a fraction of the body.
        peak_hu: 95th percentile inside, HU.
    """

    share: float = 0.0
    right: float = 0.5
    front: float = 0.5
    pieces: int = 0
    largest: float = 0.0
    peak_hu: float = 0.0


@dataclass(frozen=True)
class Measurements:
    """All that is measured on one slice; see the module's text for the units.

    Attributes:
        field_share: Area of the body as a fraction of the field of view.
        width: Width of the body, fraction of the field of view's diameter.
        depth: Front-to-back extent, likewise.
        bodies: Separate bodies of similar size (two thighs).
        small_bodies: Further small ones (arms beside the trunk).
        lung: Aerated lung.
        gas: Other air inside the body: airways, bowel, sinuses.
        fat: Fat.
        soft: Soft tissue.
        solid: Soft tissue far from its borders: organs and large muscles.
        bone: Bone.
        contrast: Bright and no bone: contrast medium, calcification.
        metal: Share of metal.
        fat_rim: Median depth of the fat below the skin, fraction of the body's half width.
        soft_hu: Median of the soft tissue, HU.
        enclosed: Share of the body that lies within the outline of its bones.
        marrow: Share of the bones' filled area that is not dense.
        spine: Share of the bone that lies in the middle third of the width, behind.
        mediastinum: Share of the space between the outer borders of the lungs that is not lung.
        symmetry: Agreement of the slice with its mirror image, 0 to 1.
        layout: Where tissues lie, as ``layout.layout`` names it.
    """

    field_share: float
    width: float
    depth: float
    bodies: int
    small_bodies: int
    lung: Part
    gas: Part
    fat: Part
    soft: Part
    solid: Part
    bone: Part
    contrast: Part
    metal: float
    fat_rim: float
    soft_hu: float
    enclosed: float
    marrow: float
    spine: float
    mediastinum: float
    symmetry: float
    layout: dict[str, float]


def smooth(hu: np.ndarray) -> np.ndarray:
    """Return (B, 128, 128) float32: the slices (B, n, n) on the working grid, blurred.

    Air in noise lies on both sides of -1000 HU; values are kept so that averages stay unbiased.
    """
    weights = _resampling(hu.shape[-1])
    small = weights @ np.asarray(hu, np.float32) @ weights.T
    sigma = SMOOTHING_PIXELS
    blurred: np.ndarray = ndimage.gaussian_filter(
        small, (0, sigma, sigma), mode="nearest", truncate=3
    )
    return blurred


@lru_cache(maxsize=8)
def _resampling(n: int) -> np.ndarray:
    """Return the (128, n) matrix that resamples one axis: averages to fewer, a line to more."""
    step = n / WORKING_SIZE
    wanted = (np.arange(WORKING_SIZE) + 0.5) * step - 0.5
    apart = np.abs(wanted.clip(0, n - 1)[:, None] - np.arange(n))
    weights = np.clip((max(step, 1.0) + 1) / 2 - apart, 0, 1)
    normed: np.ndarray = weights / weights.sum(1, keepdims=True)
    return normed.astype(np.float32)


def measure(image: np.ndarray) -> Measurements | None:
    """Measure one smoothed slice (m, m) in HU; ``None`` where there is no body."""
    found = find_bodies(image)
    if found is None:
        return None
    body, bodies, small_bodies = found
    frame = _Frame.of(body)
    area, depth_map = float(body.sum()), ndimage.distance_transform_edt(body)
    lung, gas = _air(image, body)
    bone, contrast = _bright(image, body)
    fat = body & (image > FAT_HU[0]) & (image < FAT_HU[1]) & ~_beside(lung | gas)
    soft = body & (image >= SOFT_HU[0]) & (image < SOFT_HU[1]) & ~bone & ~contrast
    solid = ndimage.binary_erosion(soft, iterations=3)
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(bone, iterations=3)) & body
    bones = ndimage.binary_fill_holes(bone)
    size = image.shape[0]
    return Measurements(
        field_share=area / (np.pi / 4 * size**2),
        width=frame.width / size,
        depth=frame.depth / size,
        bodies=bodies,
        small_bodies=small_bodies,
        metal=float((body & (image > METAL_ABOVE_HU)).sum()) / area,
        fat_rim=_rim(soft | bone | lung, body, depth_map, frame),
        soft_hu=float(np.median(image[soft])) if soft.any() else 0.0,
        enclosed=float(filled.sum()) / area,
        marrow=1.0 - float(bone.sum()) / max(float(bones.sum()), 1.0),
        spine=frame.spine(bone),
        mediastinum=_mediastinum(lung, body),
        symmetry=_symmetry(image, frame),
        layout=layout(image, body, depth_map, {"lung": lung, "gas": gas, "fat": fat, "bone": bone}),
        lung=frame.part(lung, image),
        gas=frame.part(gas, image),
        fat=frame.part(fat, image),
        soft=frame.part(soft, image),
        solid=frame.part(solid, image),
        bone=frame.part(bone, image),
        contrast=frame.part(contrast, image),
    )


@dataclass(frozen=True)
class _Frame:
    """The box around the body, against which places are told."""

    area: float
    top: int
    left: int
    depth: int
    width: int

    @classmethod
    def of(cls, body: np.ndarray) -> "_Frame":
        rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
        return cls(
            float(body.sum()),
            int(rows[0]),
            int(columns[0]),
            int(rows[-1] - rows[0] + 1),
            int(columns[-1] - columns[0] + 1),
        )

    def part(self, mask: np.ndarray, image: np.ndarray) -> Part:
        """Return the share, place and pieces of ``mask`` (m, m) bool."""
        count = int(mask.sum())
        if count < SPECK_PIXELS:
            return Part()
        middle_row, middle_column = self.top + self.depth // 2, self.left + self.width // 2
        labels, _ = ndimage.label(mask)
        sizes = np.bincount(labels.ravel())[1:]
        return Part(
            share=count / self.area,
            right=float(mask[:, :middle_column].sum()) / count,
            front=float(mask[:middle_row].sum()) / count,
            pieces=int((sizes >= SPECK_PIXELS).sum()),
            largest=float(sizes.max()) / self.area,
            peak_hu=float(np.percentile(image[mask], 95)),
        )

    def spine(self, bone: np.ndarray) -> float:
        """Return the fraction of ``bone`` in the middle third, behind the middle of the body."""
        third = self.width // 3
        middle = bone[self.top + self.depth // 2 :, self.left + third : self.left + 2 * third]
        return float(middle.sum()) / max(float(bone.sum()), 1.0)


def _air(image: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of lung and of other gas inside the body."""
    aerated = body & (image < GAS_BELOW_HU)
    labels, count = ndimage.label(aerated)
    if count == 0:
        return aerated, aerated
    index = np.arange(1, count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    # Only the labelled pixels: ndimage would sort the whole slice.
    middle = np.asarray(ndimage.median(image[aerated], labels[aerated], index))
    is_lung = (sizes >= LUNG_SHARE * body.sum()) & (middle > LUNG_ABOVE_HU)
    lung = np.isin(labels, index[is_lung])
    return lung, np.isin(labels, index[~is_lung & (sizes >= SPECK_PIXELS)])


def _bright(image: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of bone and of other bright regions.

    A bright piece is contrast medium if it is faint, or of middle density and uniform: bone has a
    dense cortex around a looser inside. Marrow no brighter than soft tissue is not counted.
    """
    bright = body & (image >= SOFT_HU[1])
    labels, count = ndimage.label(bright)
    if count == 0:
        return bright, bright
    index = np.arange(1, count + 1)
    values, pieces = image[bright], labels[bright]
    peaks = np.asarray(ndimage.maximum(values, pieces, index))
    medians = np.asarray(ndimage.median(values, pieces, index))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    uniform = (medians > UNIFORM_RATIO * peaks) & (peaks < CONTRAST_MAX_HU)
    bone = (peaks >= BONE_PEAK_HU) & ~uniform
    large = sizes >= SPECK_PIXELS
    return np.isin(labels, index[large & bone]), np.isin(labels, index[large & ~bone])


def _beside(air: np.ndarray) -> np.ndarray:
    """Return the rim around air, where blurring makes values that look like fat."""
    rim: np.ndarray = ndimage.binary_dilation(air, iterations=2)
    return rim


def _rim(inner: np.ndarray, body: np.ndarray, depth_map: np.ndarray, frame: _Frame) -> float:
    """Return how deep below the skin the first tissue other than fat lies, typically.

    The skin itself is as dense as muscle: it is passed over.
    """
    skin = 3.0
    border = ndimage.binary_dilation(inner & (depth_map > skin)) & (depth_map > skin) & ~inner
    if not (inner & (depth_map > skin)).any():
        return 0.0
    depths = depth_map[border & body]
    outer = np.percentile(depths, 25) if depths.size else skin
    return float(outer) / (frame.width / 2)


def _mediastinum(lung: np.ndarray, body: np.ndarray) -> float:
    """Return the part of the thoracic space, row by row between the lungs' borders, not lung."""
    rows = lung.any(1)
    if not rows.any():
        return 0.0
    within = np.logical_or.accumulate(lung, 1) & np.logical_or.accumulate(lung[:, ::-1], 1)[:, ::-1]
    space = within & body
    return 1.0 - float((lung & space).sum()) / max(float(space.sum()), 1.0)


def _symmetry(image: np.ndarray, frame: _Frame) -> float:
    """Return 1 minus the mean difference to the mirror image, in a soft-tissue window."""
    box = image[frame.top : frame.top + frame.depth, frame.left : frame.left + frame.width]
    window = np.clip(box, -200.0, 200.0)
    return 1.0 - float(np.abs(window - window[:, ::-1]).mean()) / 200.0

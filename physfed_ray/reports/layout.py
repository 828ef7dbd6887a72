"""How tissues are laid out in the body, alike for a slice and its mirror image.

What tells a region is less how much there is of a tissue than where: lungs lie on both sides of
the middle and reach the ribs, bowel gas does not; a trunk has its spine in the middle behind,
shoulders and hips have bone at the sides.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

ROWS, COLUMNS = 3, 3
DENSE_HU = 700.0
"""On the smoothed slice little but the shafts of long bones and the skull is denser than this."""
HAZY_HU = (-800.0, -250.0)
"""Lung in which there is more than air: in a blurred slice also the borders of air."""
TISSUES = ("lung", "gas", "fat", "bone")


def layout(
    image: np.ndarray, body: np.ndarray, depth_map: np.ndarray, tissues: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return named numbers that do not change when the slice is mirrored.

    Args:
        image: The smoothed slice, (m, m), HU.
        body: Where the body is, (m, m) bool.
        depth_map: Distance to the skin, (m, m), pixels.
        tissues: Masks (m, m) bool of ``TISSUES``.

    Returns:
        How much of each zone of the body's box is body, and how much of the body in it is each
        tissue (zones from front to back, and from the middle to the sides); how deep and how far
        from the middle tissues lie; how much of the outline lies straight on the box, as at the
        edge of a frame that cuts the body.
    """
    rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = np.s_[top:bottom, left:right]
    depth, width = bottom - top, right - left
    down = (np.arange(depth) + 0.5) / depth
    aside = np.abs(2 * (np.arange(width) + 0.5) / width - 1)
    by_row = _shares(down, ROWS)
    by_column = _shares(aside, COLUMNS)

    def zones(mask: np.ndarray) -> np.ndarray:
        counted: np.ndarray = by_row @ mask[box].astype(np.float32) @ by_column.T
        return counted

    inside = zones(body)
    found = _named("body", inside / zones(np.ones_like(body)))
    deepest = float(depth_map.max())
    for name in TISSUES:
        mask = tissues[name]
        found |= _named(name, zones(mask) / np.maximum(inside, 1.0))
        any_ = bool(mask.any())
        found[f"{name} depth"] = float(depth_map[mask].mean()) / deepest if any_ else 0.0
        found[f"{name} aside"] = float((mask[box] @ aside).sum() / mask.sum()) if any_ else 0.0
    lung, bone = tissues["lung"], tissues["bone"]
    hazy = body & (image > HAZY_HU[0]) & (image < HAZY_HU[1])
    found |= _named("hazy", zones(hazy) / np.maximum(inside, 1.0))
    found |= _bones(tissues["bone"], float(body.sum()))
    found["lung hu"] = float(np.median(image[lung])) / 1000 if lung.any() else 0.0
    found["dense"] = float((image[bone] > DENSE_HU).mean()) if bone.any() else 0.0
    sides = (body[box][:, 0].mean(), body[box][:, -1].mean())
    found["cut aside"], found["cut other side"] = float(max(sides)), float(min(sides))
    found["cut front"] = float(body[box][0].mean())
    found["cut behind"] = float(body[box][-1].mean())
    return found


def _bones(bone: np.ndarray, area: float) -> dict[str, float]:
    """Return the shapes of bones: a shaft is one round ring, ribs are many, hips are large."""
    labels, _ = ndimage.label(bone)
    sizes = np.bincount(labels.ravel())[1:]
    if not sizes.size:
        names = ("many bones", "second bone", "bone fills", "bone narrow", "bone long")
        return dict.fromkeys(names, 0.0)
    order = np.argsort(sizes)[::-1]
    rows, columns = ndimage.find_objects(labels)[order[0]]
    tall, wide = rows.stop - rows.start, columns.stop - columns.start
    return {
        "many bones": float(min((sizes > 0.003 * area).sum(), 12)),
        "second bone": float(sizes[order[1]] / sizes[order[0]]) if sizes.size > 1 else 0.0,
        "bone fills": float(sizes[order[0]] / (tall * wide)),
        "bone narrow": float(min(tall, wide) / max(tall, wide)),
        "bone long": float(max(tall, wide) / np.sqrt(area)),
    }


def _shares(places: np.ndarray, zones: int) -> np.ndarray:
    """Return (zones, n): 1 where a place in [0, 1) lies in a zone."""
    inside = np.floor(places * zones).clip(0, zones - 1) == np.arange(zones)[:, None]
    shares: np.ndarray = inside.astype(np.float32)
    return shares


def _named(name: str, values: np.ndarray) -> dict[str, float]:
    return {
        f"{name} {row}{column}": float(values[row, column])
        for row in range(ROWS)
        for column in range(COLUMNS)
    }

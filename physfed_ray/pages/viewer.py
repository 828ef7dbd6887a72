"""A viewer of CT slices in a page: windows, flicker, difference, line profile, loupe.

The page is one file that opens offline; ``docs/viewer.md`` says what a reader can do with it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from physfed_ray.pages import render
from physfed_ray.pages.viewer_pixels import BEFORE, ONE, OWN, Packed, pack
from physfed_ray.window import Window

SLICES = 24
"""How many slices a viewer holds at most."""
MAX_BYTES = 2_850_000
"""What its pixels may take, which leaves its page below 3 MB."""
PRESETS: Mapping[str, Window] = {
    "Lung": (-1350.0, 150.0),
    "Soft tissue": (-160.0, 240.0),
    "Bone": (-500.0, 1300.0),
}
"""Windows that a reader expects by name, HU."""


def viewer_html(
    images: Mapping[str, np.ndarray],
    *,
    spacing_mm: Any,
    window_hu: Window,
    title: str,
    captions: Sequence[str],
    lead: str = "",
) -> str:
    """Return a page that holds nothing but a viewer, below 3 MB.

    Args:
        images: The same slices in each way, (N, h, w) HU, by the name to show ("low dose",
            "denoised", "full dose"), in the order in which the reader flicks through them.
        spacing_mm: Height and width of a pixel in mm, or one pair a slice, (N, 2).
        window_hu: Window of the run, which the reader can choose beside the usual ones.
        title: Heading of the page.
        captions: What each slice is. They are shown as they are: no patient may be named.
        lead: A sentence below the heading.

    Raises:
        ValueError: The images differ in shape, or a value is not finite.
    """
    viewer = viewer_fragment(
        images,
        spacing_mm=spacing_mm,
        window_hu=window_hu,
        label=title,
        captions=captions,
        whole_page=True,
    )
    return render("viewer.html", title=title, lead=lead, viewer=viewer)


def viewer_fragment(
    images: Mapping[str, np.ndarray],
    *,
    spacing_mm: Any,
    window_hu: Window,
    label: str,
    captions: Sequence[str],
    max_bytes: int = MAX_BYTES,
    whole_page: bool = False,
) -> Markup:
    """Return a viewer to place in a page that includes ``viewer.css`` and, once, ``viewer.js``.

    Args:
        images: As for ``viewer_html``.
        spacing_mm: Likewise.
        window_hu: Likewise.
        label: Name of the viewer for those who cannot see it.
        captions: As for ``viewer_html``.
        max_bytes: What its pixels may take.
        whole_page: Whether keys and wheel are its own before it was clicked.

    Raises:
        ValueError: The images differ in shape, or a value is not finite.
    """
    arrays = [np.asarray(image) for image in images.values()]
    if not arrays or arrays[0].ndim != 3 or {a.shape for a in arrays} != {arrays[0].shape}:
        shapes = {name: np.shape(image) for name, image in images.items()}
        raise ValueError(f"a viewer shows images of one shape (N, h, w), not {shapes}")
    if not all(np.isfinite(a).all() for a in arrays):
        raise ValueError("a viewer shows finite HU")
    count = len(arrays[0])
    if len(captions) != count:
        raise ValueError(f"{count} slices have {len(captions)} captions")
    spacing = np.broadcast_to(np.asarray(spacing_mm, np.float64), (count, 2))
    packed = pack(arrays, slices=SLICES, max_bytes=max_bytes)
    data = {
        "names": list(images),
        "shape": packed.shape,
        "step": packed.step_hu,
        "spacing": [[round(v * packed.block, 5) for v in spacing[k]] for k in packed.kept],
        "captions": [captions[k] for k in packed.kept],
        "windows": {**PRESETS, "Run": window_hu},
        "places": {"own": OWN, "before": BEFORE, "one": ONE},
        "chunks": packed.chunks,
    }
    html = render(
        "viewer_fragment.html",
        label=label,
        names=list(images),
        captions=data["captions"],
        windows=data["windows"],
        note=_note(packed, count),
        whole_page=whole_page,
        data=Markup(json.dumps(data).replace("<", "\\u003c")),
    )
    return Markup(html)


def _note(packed: Packed, count: int) -> str:
    """Say what was done to the pixels to keep the page small."""
    half = packed.step_hu / 2
    said = [f"HU are kept in steps of {packed.step_hu}, so each is within {half:g} HU of its value"]
    if packed.block > 1:
        said.append(f"each pixel is the mean of {packed.block} x {packed.block} of the image's")
    if len(packed.kept) < count:
        said.append(f"{len(packed.kept)} of {count} slices are here, evenly spread")
    return "To keep this page small: " + "; ".join(said) + "."

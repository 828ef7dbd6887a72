"""The viewer beside a folder of denoised series: a few slices before and after."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from physfed_ray.atomic import atomic_file
from physfed_ray.pages.viewer import SLICES, viewer_html
from physfed_ray.serving.output import VIEWER, read_record
from physfed_ray.serving.parts import place_of
from physfed_ray.window import Window

if TYPE_CHECKING:
    from physfed_ray.data.dicom.headers import SliceHeader
    from physfed_ray.data.dicom.whole_series import Found, WholeSeries


def write_viewer(out: Path, found: "Found", window_hu: Window) -> Path | None:
    """Write ``viewer.html`` with slices of the longest series; none where no slice can be shown.

    Args:
        out: The folder of denoised series.
        found: What was denoised.
        window_hu: The run's window.
    """
    from physfed_ray.data.patient import evenly_spaced

    series = max(found.series, key=lambda series: len(series.slices))
    there = [
        (header, place_of(out, series.name, place))
        for place, header in enumerate(_alike(series), 1)
        if header is not None
    ]
    there = [pair for pair in there if pair[1].is_file()]
    pairs = [there[index] for index in evenly_spaced(len(there), SLICES)]
    if not pairs:
        return None
    before, after = (np.stack(images) for images in zip(*map(_read, pairs), strict=True))
    record = read_record(out) or {}
    page = viewer_html(
        {"before": before, "denoised": after},
        spacing_mm=pairs[0][0].spacing_mm,
        window_hu=window_hu,
        title="Before and after denoising",
        captions=[f"{series.name}, slice {int(path.stem)}" for _, path in pairs],
        lead=f"{record.get('model', {}).get('name', '')}.",
    )
    with atomic_file(out / VIEWER) as temporary:
        temporary.write_text(page)
    return out / VIEWER


def _alike(series: "WholeSeries") -> "list[SliceHeader | None]":
    """Return the slices in their places, None for those of another matrix than most."""
    kinds = [(header.stack[7:8], header.spacing_mm) for header in series.slices]
    (most, _), *_ = Counter(kinds).most_common(1)
    return [h if kind == most else None for h, kind in zip(series.slices, kinds, strict=True)]


def _read(pair: "tuple[SliceHeader, Path]") -> tuple[np.ndarray, np.ndarray]:
    from physfed_ray.data.dicom.files import quiet_pydicom  # pydicom: for those who read files
    from physfed_ray.data.dicom.frames import read_image

    header, path = pair
    with quiet_pydicom():
        before, _ = read_image(header.path, header.frame_index)
        after, _ = read_image(path, None)
    return before, after

"""From single slices to patients: duplicates out, repeated series out, slices in order."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence

from physfed_ray.data.dicom.headers import SliceHeader

DUPLICATE = "duplicate slice"
REPEATED = "repeated series"
TOO_FEW = "too few slices"

SAME_POSITION_MM = 0.01
"""Slices nearer than this are one slice, taken twice (another phase) or stored twice."""


def arrange(
    headers: Iterable[SliceHeader], min_slices: int
) -> tuple[dict[str, tuple[SliceHeader, ...]], dict[str, list[SliceHeader]]]:
    """Return each patient's slices in order, and what is left out by reason.

    All of a patient's series contribute, ordered by date and series, each ordered along the normal
    of its slices. Of several series of one part of the body in one study (the same scan
    reconstructed with another kernel, or other phases of contrast) the one with most slices is
    kept, of equal ones the first.

    Args:
        headers: Usable slices, in the order of the folder.
        min_slices: Patients with fewer are left out.
    """
    left_out: dict[str, list[SliceHeader]] = defaultdict(list)
    series: dict[tuple[str, str, str], list[SliceHeader]] = defaultdict(list)
    instances: set[str] = set()
    for header in headers:
        if header.instance_uid and header.instance_uid in instances:
            left_out[DUPLICATE].append(header)
            continue
        instances.add(header.instance_uid)
        series[header.patient, header.study, header.series].append(header)
    scans: dict[tuple[str, str, str], list[list[SliceHeader]]] = defaultdict(list)
    for slices in series.values():
        kept, doubled = one_per_position(slices)
        left_out[DUPLICATE].extend(doubled)
        scans[kept[0].patient, kept[0].study, kept[0].frame].append(kept)
    patients: dict[str, list[list[SliceHeader]]] = defaultdict(list)
    for (patient, _, _), candidates in scans.items():
        distinct, repeated = one_per_part(candidates)
        patients[patient].extend(distinct)
        left_out[REPEATED].extend(repeated)
    usable = {}
    for patient in sorted(patients):
        ordered = [header for slices in sorted(patients[patient], key=when) for header in slices]
        if len(ordered) < min_slices:
            left_out[TOO_FEW].extend(ordered)
        else:
            usable[patient] = tuple(ordered)
    return usable, {reason: files for reason, files in left_out.items() if files}


def when(slices: Sequence[SliceHeader]) -> tuple[str, str, int, str]:
    """Return what orders series: date, study, number."""
    first = slices[0]
    return first.date, first.study, first.series_number, first.series


def one_per_position(
    slices: Iterable[SliceHeader],
) -> tuple[list[SliceHeader], list[SliceHeader]]:
    """Order a series along the body and keep the first slice of each position."""
    kept: list[SliceHeader] = []
    doubled: list[SliceHeader] = []
    last: float | None = None
    for header in sorted(slices, key=lambda h: (round(h.position_mm, 2), h.order, h.number)):
        if last is not None and header.position_mm - last < SAME_POSITION_MM:
            doubled.append(header)
        else:
            kept.append(header)
            last = header.position_mm
    return kept, doubled


def one_per_part(
    candidates: Sequence[list[SliceHeader]],
) -> tuple[list[list[SliceHeader]], list[SliceHeader]]:
    """Drop series of which more than half lies where a series with more slices lies."""
    kept: list[list[SliceHeader]] = []
    repeated: list[SliceHeader] = []
    for slices in sorted(candidates, key=lambda s: (-len(s), when(s))):
        positions = [header.position_mm for header in slices]
        if any(2 * _inside(positions, other) > len(positions) for other in kept):
            repeated.extend(slices)
        else:
            kept.append(slices)
    return kept, repeated


def _inside(positions: Sequence[float], other: Sequence[SliceHeader]) -> int:
    """Count the sorted positions within the range of a series, half a slice's distance added."""
    low, high = other[0].position_mm, other[-1].position_mm
    margin = (high - low) / (len(other) - 1) / 2 if len(other) > 1 else SAME_POSITION_MM
    return bisect_right(positions, high + margin) - bisect_left(positions, low - margin)

"""From single slices to patients: duplicates out, repeated series out, slices in order."""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from physfed_ray.data.dicom.duplicates import DUPLICATE, without_copies
from physfed_ray.data.dicom.headers import NO_POSITION, SliceHeader
from physfed_ray.data.dicom.people import tell_apart
from physfed_ray.data.dicom.stacks import SAME_POSITION_MM, place, stacks, taken

OTHER_IMAGE = "another image under one UID"
REPEATED = "repeated series"
TOO_FEW = "too few slices"


def arrange(
    headers: Iterable[SliceHeader], min_slices: int, root: Path
) -> tuple[dict[str, tuple[SliceHeader, ...]], dict[str, list[SliceHeader]]]:
    """Return each patient's slices in order, and what is left out by reason.

    All of a patient's series contribute, ordered by date and series, each ordered along the normal
    of its slices. Of several series of one part of the body in one study (the same scan
    reconstructed with another kernel, or other phases of contrast) the one with most slices is
    kept, of equal ones the first. Several stacks in one series count as so many series. Only what
    the headers say decides, and where files are copies of each other, their order.

    Args:
        headers: Usable slices.
        min_slices: Patients with fewer are left out.
        root: The folder that is read, which tells patients without an id apart.
    """
    left_out: dict[str, list[SliceHeader]] = defaultdict(list)
    told, unclear = tell_apart(headers, root)
    images, copies = without_copies(sorted(told, key=by_content))
    for reason, slices in (*unclear.items(), *copies.items()):
        left_out[reason].extend(slices)
    series: dict[tuple[str, str, str], list[SliceHeader]] = defaultdict(list)
    for header in images:
        series[header.patient, header.study, header.series].append(header)
    scans: dict[tuple[str, ...], list[list[SliceHeader]]] = defaultdict(list)
    for slices in series.values():
        # Positions of different kinds cannot be compared.
        kind, positioned, lost = place(slices)
        left_out[NO_POSITION].extend(lost)
        for stack in stacks(positioned):
            kept, doubled = one_per_position(stack)
            for reason, dropped in doubled.items():
                left_out[reason].extend(dropped)
            scans[kept[0].patient, kept[0].study, kept[0].frame, kind].append(kept)
    patients: dict[str, list[list[SliceHeader]]] = defaultdict(list)
    for (patient, *_), candidates in scans.items():
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


def by_content(header: SliceHeader) -> tuple[object, ...]:
    """Return what orders slices, whatever their files are called."""
    position = header.position_mm if math.isfinite(header.position_mm) else math.inf
    where = (header.patient, header.study, header.series, position)
    return *where, *taken(header), header.number


def when(slices: Sequence[SliceHeader]) -> tuple[str, str, int, str, float]:
    """Return what orders series: date, study, number, place in the body."""
    first = slices[0]
    return first.date, first.study, first.series_number, first.series, first.position_mm


def one_per_position(
    slices: Iterable[SliceHeader],
) -> tuple[list[SliceHeader], dict[str, list[SliceHeader]]]:
    """Order a stack along the body and keep the first slice of each position."""
    kept: list[SliceHeader] = []
    doubled: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in sorted(slices, key=lambda h: (round(h.position_mm, 2), h.order, h.time)):
        if kept and header.position_mm - kept[-1].position_mm < SAME_POSITION_MM:
            same_uid = header.instance_uid and header.instance_uid == kept[-1].instance_uid
            lies = same_uid and header.path != kept[-1].path  # Frames of a file share its UID.
            doubled[OTHER_IMAGE if lies else DUPLICATE].append(header)
        else:
            kept.append(header)
    return kept, doubled


def one_per_part(
    candidates: Sequence[list[SliceHeader]],
) -> tuple[list[list[SliceHeader]], list[SliceHeader]]:
    """Drop series of which more than half lies where a series with more slices lies."""
    kept: list[list[SliceHeader]] = []
    repeated: list[SliceHeader] = []
    for slices in sorted(candidates, key=lambda s: (-len(s), _first_taken(s))):
        positions = [header.position_mm for header in slices]
        if any(2 * _inside(positions, other, slices) > len(positions) for other in kept):
            repeated.extend(slices)
        else:
            kept.append(slices)
    return kept, repeated


def _first_taken(slices: Sequence[SliceHeader]) -> tuple[object, ...]:
    return *when(slices)[:-1], *min(map(taken, slices))


def _inside(
    positions: Sequence[float], other: Sequence[SliceHeader], slices: Sequence[SliceHeader]
) -> int:
    """Count the sorted positions within the range of a series.

    Half a slice's distance is added, but not between stacks of one series, which often join.
    """
    low, high = other[0].position_mm, other[-1].position_mm
    margin = SAME_POSITION_MM
    if len(other) > 1 and other[0].series != slices[0].series:
        margin = (high - low) / (len(other) - 1) / 2
    return bisect_right(positions, high + margin) - bisect_left(positions, low - margin)

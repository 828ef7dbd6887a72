"""Stacks of one series: slices that were taken together, and where they lie."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from physfed_ray.data.dicom.headers import SliceHeader

SAME_POSITION_MM = 0.01
"""Slices nearer than this are one slice, taken twice (another phase) or stored twice."""

SHORTEST_PASS = 3
"""A pass over the body shows in the order of times or numbers only if it has a few slices."""

Slices = list[SliceHeader]


def stacks(series: Sequence[SliceHeader]) -> list[Slices]:
    """Part a series into what was taken, or reconstructed, in one go.

    Slices belong together if their acquisition, phase, orientation, matrix, pixels, kernel and
    tube voltage are the same. Where those say nothing, times do that several slices share, and
    then passes over the body in the order of times or of instance numbers. Single slices that
    belong to none go with the largest stack.
    """
    groups: dict[object, Slices] = defaultdict(list)
    for header in series:
        groups[header.stack].append(header)
    parted = [run for group in groups.values() for part in _by_time(group) for run in _passes(part)]
    found = sorted((stack for stack in parted if len(stack) > 1), key=_largest_first)
    loose = [header for stack in parted if len(stack) == 1 for header in stack]
    if not found:
        return [loose] if loose else []
    found[0] += loose
    return found


def place(series: Sequence[SliceHeader]) -> tuple[str, Slices, Slices]:
    """Return by what a series is ordered, its slices with their positions, and those without.

    Positions along the normal are believed unless most are missing or all are the same. Then
    SliceLocation takes their place if it differs between slices, and then InstanceNumber, times
    the distance of slices that the headers give: an order, at no true place in the body. Slices
    that are one place over time (each an acquisition of its own) stay at one place.

    Returns:
        ``"position"``, ``"location"`` or ``"instance"``; slices; slices that have no position.
    """
    series = _filled_in(series)
    positioned = [header for header in series if math.isfinite(header.position_mm)]
    lacking = [header for header in series if not math.isfinite(header.position_mm)]
    if len(lacking) <= len(positioned) and _vary([h.position_mm for h in positioned]):
        return "position", positioned, lacking
    step = median(header.distance_mm for header in series)
    located = [(h, h.location_mm) for h in series if h.location_mm is not None]
    counted = [(h, h.instance * step) for h in series if h.instance is not None]
    one_place = bool(positioned) and len({header.stack for header in series}) == len(series)
    for kind, known in (("location", located), ("instance", [] if one_place else counted)):
        if len(known) == len(series) and _vary([mm for _, mm in known]):
            return kind, _moved(known), []
    if positioned:
        return "position", positioned, lacking
    kind, known = ("instance", counted) if len(counted) > len(located) else ("location", located)
    there = {id(header) for header, _ in known}
    return kind, _moved(known), [header for header in series if id(header) not in there]


def _filled_in(series: Sequence[SliceHeader]) -> Slices:
    """Give slices without a position their SliceLocation, where the others show that it is one."""
    others = [header for header in series if math.isfinite(header.position_mm)]
    if not others or len(others) == len(series):
        return list(series)
    if not all(
        h.location_mm is not None and abs(h.location_mm - h.position_mm) < SAME_POSITION_MM
        for h in others
    ):
        return list(series)
    return [
        header
        if math.isfinite(header.position_mm) or header.location_mm is None
        else replace(header, position_mm=header.location_mm)
        for header in series
    ]


def _moved(known: Iterable[tuple[SliceHeader, float]]) -> Slices:
    return [replace(header, position_mm=position) for header, position in known]


def _vary(positions: Sequence[float]) -> bool:
    return len(positions) > 1 and max(positions) - min(positions) >= SAME_POSITION_MM


def taken(header: SliceHeader) -> tuple[object, ...]:
    """Return what sorts the slices and stacks of one series by when and how they were taken."""
    settings = tuple((value is not None, value) for value in header.stack)
    return header.order, header.time, settings, header.instance_uid


def _largest_first(stack: Slices) -> tuple[object, ...]:
    return -len(stack), *min(map(taken, stack))


def _by_time(group: Slices) -> list[Slices]:
    """Part slices by their time of acquisition, if no slice has a time of its own."""
    times: dict[str, Slices] = defaultdict(list)
    for header in group:
        times[header.time].append(header)
    if "" in times or min(map(len, times.values())) < 2:
        return [group]
    return list(times.values())


def _passes(group: Slices) -> list[Slices]:
    """Part slices where, in the order of times or else of numbers, the table turns back."""
    if len(group) < 2 * SHORTEST_PASS:
        return [group]
    timed = [(header.time, header) for header in group if header.time]
    counted = [(header.instance, header) for header in group if header.instance is not None]
    pairs: Sequence[tuple[object, SliceHeader]]
    for pairs in (timed, counted):
        if len({key for key, _ in pairs}) == len(group):
            ordered = [h for _, h in sorted(pairs, key=lambda pair: pair[0])]
            passes = _cut_at_turns(ordered)
            return passes if min(map(len, passes)) >= SHORTEST_PASS else [group]
    return [group]


def _cut_at_turns(ordered: Slices) -> list[Slices]:
    """Cut a sequence of slices where their positions change direction, or stand still."""
    passes = [[ordered[0]]]
    direction = 0.0
    for before, header in pairwise(ordered):
        step = header.position_mm - before.position_mm
        if abs(step) < SAME_POSITION_MM or step * direction < 0:
            passes.append([header])
            direction = 0.0
        else:
            passes[-1].append(header)
            direction = step
    return passes

"""Which full-dose slice belongs to which low-dose slice: by patient, geometry and position."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from physfed_ray.data.dicom.details import Details, read_details
from physfed_ray.data.dicom.duplicates import without_copies
from physfed_ray.data.dicom.headers import NO_POSITION, SliceHeader
from physfed_ray.data.dicom.people import TWO_PEOPLE, tell_apart
from physfed_ray.data.dicom.person import Person
from physfed_ray.data.dicom.reasons import DERIVED, DERIVED_LET_IN
from physfed_ray.data.dicom.roles import Role, Roles, without_role
from physfed_ray.data.dicom.series import (
    REPEATED,
    TOO_FEW,
    by_content,
    one_per_part,
    one_per_position,
    when,
)
from physfed_ray.data.dicom.stacks import place, stacks

NEITHER = "neither full nor low dose by its name"
UNPAIRED = "no slice of the other dose beside it"
OTHER_GEOMETRY = "another geometry than the other dose"
OTHER_KERNEL = "full and low dose with different kernels"
OTHER_NAME = "full and low dose with different names"

SAME_PLACE_MM = 0.1
"""Slices of two series that lie nearer than this, along the body and across it, show the same."""
SAME_THICKNESS_MM = 0.05
SAME_COSINE = 1e-3
SAME_SPACING = 1e-3
"""Relative."""

Pair = tuple[SliceHeader, SliceHeader]
"""A slice at full dose, and the same at low dose."""


@dataclass
class Paired:
    """What pairing comes to.

    Attributes:
        patients: Pairs of each patient, in the order of the body.
        left_out: Slices by the reason why they are not used.
        told: How many patients have something that is used and yet looks wrong, by what it is.
    """

    patients: dict[str, tuple[Pair, ...]]
    left_out: dict[str, list[SliceHeader]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(frozen=True)
class _Series:
    """Slices of one stack at one dose, sorted.

    Attributes:
        slices: In the order of the body.
        placed_by: What says their positions, as of ``stacks.place``.
        read: Reads the details of a slice.
    """

    slices: list[SliceHeader]
    placed_by: str
    read: Callable[[SliceHeader], Details]

    @property
    def kernel(self) -> str:
        return self.read(self.slices[0]).kernel


def pair(
    headers: Iterable[SliceHeader],
    root: Path,
    roles: Roles,
    min_slices: int,
    *,
    derived: bool = False,
    read: Callable[[SliceHeader], Details] = read_details,
) -> Paired:
    """Pair the slices of all patients.

    Each full-dose series takes the low-dose series of its patient that lies in the same study, has
    the same kernel, and shares most positions with it, in this order. Of several pairs of one part
    of the body, as reconstructions of another thickness or kernel are, the one with most slices is
    kept.

    Args:
        headers: Usable slices as they were read, in the order of the folder.
        root: The folder, which says nothing about roles itself.
        roles: Tells the doses apart.
        min_slices: Patients with fewer pairs are left out.
        derived: Let in full-dose images that were computed from others.
        read: Reads the details of a slice.
    """
    paired, read = Paired({}), cache(read)
    of_role: dict[Role, list[SliceHeader]] = {"full": [], "low": []}
    named: dict[tuple[Path, int | None], Person] = {}
    for header, role in _with_roles(headers, root, roles, read):
        if role != "low" and DERIVED_LET_IN in header.notes and not derived:
            paired.left_out[DERIVED].append(header)
        elif role is None:
            paired.left_out[NEITHER].append(header)
        else:
            if role == "low":
                # No wonder, and nothing to be told: inserted noise makes images derived.
                notes = tuple(note for note in header.notes if note != DERIVED_LET_IN)
                header = replace(header, notes=notes)
            of_role[role].append(header)
            named[header.path, header.frame_index] = header.person
    found = {role: _series_of(slices, root, paired, read) for role, slices in of_role.items()}
    whole = found["full"].keys() & found["low"].keys()
    people: dict[str, dict[Role, list[_Series]]] = defaultdict(lambda: {"full": [], "low": []})
    for role, patients in found.items():
        for name, series in patients.items():
            people[name if name in whole else without_role(name)][role].extend(series)
    for person in sorted(people):
        pairs = _one_person(_pairs_of(people[person], paired), named, paired)
        if len(pairs) >= max(min_slices, 1):
            paired.patients[person] = pairs
        else:
            paired.left_out[TOO_FEW].extend(header for both in pairs for header in both)
    return paired


def _series_of(
    headers: Iterable[SliceHeader],
    root: Path,
    paired: Paired,
    read: Callable[[SliceHeader], Details],
) -> dict[str, list[_Series]]:
    """Return the series of each patient at one dose, as ``series.arrange`` finds them."""
    told, unclear = tell_apart(headers, root)
    images, copies = without_copies(sorted(told, key=by_content))
    for reason, slices in (*unclear.items(), *copies.items()):
        paired.left_out[reason].extend(slices)
    groups: dict[tuple[str, str, str], list[SliceHeader]] = defaultdict(list)
    for header in images:
        groups[header.patient, header.study, header.series].append(header)
    patients: dict[str, list[_Series]] = defaultdict(list)
    for (patient, _, _), group in groups.items():
        placed_by, positioned, lost = place(group)
        if placed_by == "instance":  # An order that starts anywhere: pairs could be shifted.
            positioned, lost = [], group
        paired.left_out[NO_POSITION].extend(lost)
        for stack in stacks(positioned):
            kept, doubled = one_per_position(stack)
            for reason, dropped in doubled.items():
                paired.left_out[reason].extend(dropped)
            patients[patient].append(_Series(kept, placed_by, read))
    return patients


def _one_person(
    pairs: tuple[Pair, ...], named: Mapping[tuple[Path, int | None], Person], paired: Paired
) -> tuple[Pair, ...]:
    """Return the pairs whose doses are one person's, as far as birth dates and sexes say.

    Names say less: an export may have put the dose, or another pseudonym, into them.
    """
    kept: list[Pair] = []
    names_differ = False
    for both in pairs:
        full, low = (named[header.path, header.frame_index] for header in both)
        if replace(full, name=()).contradicts(replace(low, name=())):
            paired.left_out[TWO_PEOPLE].extend(both)
            continue
        kept.append(both)
        ours, theirs = (replace(who, name=_without_roles(who.name)) for who in (full, low))
        names_differ |= ours.contradicts(theirs)
    if names_differ:
        paired.told[OTHER_NAME] += 1
    return tuple(kept)


def _without_roles(name: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(without_role(" ".join(name)).split())


def _with_roles(
    headers: Iterable[SliceHeader],
    root: Path,
    roles: Roles,
    read: Callable[[SliceHeader], Details],
) -> Iterator[tuple[SliceHeader, Role | None]]:
    """Yield each slice with its role; what a series is called is read once a folder."""
    called: dict[tuple[str, str, Path], Details] = {}
    for header in headers:
        where = header.study, header.series, header.path.parent
        if where not in called:
            called[where] = read(header)
        path = header.path.relative_to(root) if root in header.path.parents else header.path
        yield header, roles.of(path, called[where].description, called[where].kind)


def _pairs_of(series: dict[Role, list[_Series]], paired: Paired) -> tuple[Pair, ...]:
    """Pair the series of one patient, and sort out what has no partner."""
    partners = _partners(series["full"], series["low"])
    pairs: list[list[Pair]] = []
    scans: dict[tuple[str, ...], list[list[SliceHeader]]] = defaultdict(list)
    kernels_differ = False
    for one, (other, positions) in partners.items():
        full, low = series["full"][one], series["low"][other]
        pairs.append([(full.slices[i], low.slices[j]) for i, j in positions])
        first = full.slices[0]
        scans[first.study, first.frame, full.placed_by].append([both[0] for both in pairs[-1]])
        matched = {id(header) for both in pairs[-1] for header in both}
        alone = [h for h in (*full.slices, *low.slices) if id(h) not in matched]
        paired.left_out[UNPAIRED].extend(alone)
        kernels_differ |= len({full.kernel, low.kernel} - {""}) > 1
    taken = {other for other, _ in partners.values()}
    sides = (series["full"], series["low"], partners), (series["low"], series["full"], taken)
    for ours, theirs, used in sides:
        for lonely in (one for index, one in enumerate(ours) if index not in used):
            paired.left_out[_why_lonely(lonely, theirs)].extend(lonely.slices)
    low_of = {id(full): low for both in pairs for full, low in both}
    distinct: list[list[SliceHeader]] = []
    for candidates in scans.values():
        kept, repeated = one_per_part(candidates)
        distinct.extend(kept)
        paired.left_out[REPEATED].extend(h for full in repeated for h in (full, low_of[id(full)]))
    ordered = [full for slices in sorted(distinct, key=when) for full in slices]
    if ordered and kernels_differ:
        paired.told[OTHER_KERNEL] += 1
    return tuple((full, low_of[id(full)]) for full in ordered)


def _why_lonely(lonely: _Series, others: Iterable[_Series]) -> str:
    """Say why a series has no partner: there is none, or none that it fits."""
    near = [(other, positions) for other in others if (positions := _positions(lonely, other))]
    if near and not any(_same_geometry(lonely, *candidate) for candidate in near):
        return OTHER_GEOMETRY
    return UNPAIRED


def _partners(
    fulls: Sequence[_Series], lows: Sequence[_Series]
) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """Return for each full-dose series its low-dose series and the places of their pairs."""
    choices = []
    for one, full in enumerate(fulls):
        for other, low in enumerate(lows):
            positions = _positions(full, low)
            if positions and _same_geometry(full, low, positions):
                same_study = full.slices[0].study == low.slices[0].study
                same_kernel = full.kernel == low.kernel
                rank = (not same_study, not same_kernel, -len(positions), one, other)
                choices.append((rank, positions))
    partners: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    taken: set[int] = set()
    for (*_, one, other), positions in sorted(choices):
        if one not in partners and other not in taken:
            partners[one] = other, positions
            taken.add(other)
    return partners


def _positions(one: _Series, other: _Series) -> list[tuple[int, int]]:
    """Return the places of the slices of two sorted series that lie at the same position."""
    if one.placed_by != other.placed_by:
        return []
    there = [header.position_mm for header in other.slices]
    found, free = [], 0
    for index, header in enumerate(one.slices):
        candidate = bisect_left(there, header.position_mm - SAME_PLACE_MM, lo=free)
        if candidate < len(there) and there[candidate] <= header.position_mm + SAME_PLACE_MM:
            found.append((index, candidate))
            free = candidate + 1
    return found


def _same_geometry(one: _Series, other: _Series, positions: Sequence[tuple[int, int]]) -> bool:
    """Say whether the slices of a pair have the same matrix, spacing, thickness and place."""
    for ours, theirs in ((one.slices[i], other.slices[j]) for i, j in positions):
        if not np.allclose(ours.spacing_mm, theirs.spacing_mm, rtol=SAME_SPACING, atol=0):
            return False
    first, second = positions[0]
    a, b = one.read(one.slices[first]), other.read(other.slices[second])
    return (
        a.shape == b.shape
        and _agree(a.thickness_mm, b.thickness_mm, SAME_THICKNESS_MM)
        and _agree(a.orientation, b.orientation, SAME_COSINE)
        and _agree(a.corner_mm, b.corner_mm, SAME_PLACE_MM)
    )


def _agree(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> bool:
    """Compare what both say; what one does not say cannot disagree."""
    return len(ours) != len(theirs) or np.allclose(ours, theirs, rtol=0, atol=tolerance)

"""Which full-dose slice belongs to which low-dose slice: by patient, geometry and position."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from physfed_ray.data.dicom.files import open_dicom, quiet_pydicom
from physfed_ray.data.dicom.frames import GROUPS, frame_header, has_frames
from physfed_ray.data.dicom.headers import SliceHeader
from physfed_ray.data.dicom.roles import Role, Roles, without_role
from physfed_ray.data.dicom.series import (
    DUPLICATE,
    REPEATED,
    TOO_FEW,
    one_per_part,
    one_per_position,
    when,
)

NEITHER = "neither full nor low dose by its name"
UNPAIRED = "no slice of the other dose beside it"
OTHER_GEOMETRY = "another geometry than the other dose"
OTHER_KERNEL = "full and low dose with different kernels"

SAME_PLACE_MM = 0.1
"""Slices of two series that lie nearer than this, along the body and across it, show the same."""
SAME_THICKNESS_MM = 0.05
SAME_COSINE = 1e-3
SAME_SPACING = 1e-3
"""Relative."""

_TAGS = [
    "SOPClassUID", "SeriesDescription", "ImageType", "ConvolutionKernel", "SliceThickness",
    "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "DistanceSourceToPatient",
    "DistanceSourceToDetector", "SpecificCharacterSet", "Modality", "NumberOfFrames",
]  # fmt: skip

Pair = tuple[SliceHeader, SliceHeader]
"""A slice at full dose, and the same at low dose."""


@dataclass(frozen=True)
class Details:
    """What pairing asks of a slice beyond its ``SliceHeader``.

    Attributes:
        description: SeriesDescription.
        kind: ImageType, as text.
        kernel: ConvolutionKernel, as text; empty where it is not said.
        shape: Rows and columns.
        thickness_mm: SliceThickness, or nothing.
        orientation: Six cosines, or none.
        corner_mm: Position of the first pixel, or nothing.
        source_mm: From the source to the middle of the scanner; None where it is not said.
        to_detector_mm: From the source to the detector, likewise.
    """

    description: str = ""
    kind: str = ""
    kernel: str = ""
    shape: tuple[int, int] = (0, 0)
    thickness_mm: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    corner_mm: tuple[float, ...] = ()
    source_mm: float | None = None
    to_detector_mm: float | None = None


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
    """Slices of one series at one dose, sorted, and what reads their details."""

    slices: list[SliceHeader]
    read: Callable[[SliceHeader], Details]

    @property
    def kernel(self) -> str:
        return self.read(self.slices[0]).kernel


def read_details(header: SliceHeader) -> Details:
    """Read the details of a slice; what cannot be read counts as not said."""
    try:
        with quiet_pydicom(), header.path.open("rb") as file:
            dataset = open_dicom(file, [*_TAGS, *GROUPS])
            if header.frame_index is not None and has_frames(dataset):
                dataset = frame_header(dataset, header.frame_index)
            return Details(
                description=str(dataset.get("SeriesDescription") or ""),
                kind=_text(dataset, "ImageType"),
                kernel=_text(dataset, "ConvolutionKernel"),
                shape=(int(dataset.Rows), int(dataset.Columns)),
                thickness_mm=_numbers(dataset, "SliceThickness"),
                orientation=_numbers(dataset, "ImageOrientationPatient"),
                corner_mm=_numbers(dataset, "ImagePositionPatient"),
                source_mm=next(iter(_numbers(dataset, "DistanceSourceToPatient")), None),
                to_detector_mm=next(iter(_numbers(dataset, "DistanceSourceToDetector")), None),
            )
    # pydicom raises whatever its parsing of broken values runs into.
    except Exception:
        return Details()


def pair(
    headers: Iterable[SliceHeader],
    root: Path,
    roles: Roles,
    min_slices: int,
    read: Callable[[SliceHeader], Details] = read_details,
) -> Paired:
    """Pair the slices of all patients.

    Each full-dose series takes the low-dose series of its patient that lies in the same study, has
    the same kernel, and shares most positions with it, in this order. Of several pairs of one part
    of the body, as reconstructions of another thickness or kernel are, the one with most slices is
    kept.

    Args:
        headers: Usable slices, in the order of the folder.
        root: The folder, which says nothing about roles itself.
        roles: Tells the doses apart.
        min_slices: Patients with fewer pairs are left out.
        read: Reads the details of a slice.
    """
    paired, read = Paired({}), cache(read)
    found: dict[tuple[str, Role], dict[tuple[str, str], list[SliceHeader]]] = {}
    for header, role in _with_roles(headers, root, roles, read):
        if role is None:
            paired.left_out[NEITHER].append(header)
            continue
        of_role = found.setdefault((header.patient, role), {})
        of_role.setdefault((header.study, header.series), []).append(header)
    names = {patient for patient, _ in found}
    whole = {name for name in names if (name, "full") in found and (name, "low") in found}
    people: dict[str, dict[Role, list[_Series]]] = defaultdict(lambda: {"full": [], "low": []})
    for (name, role), all_series in found.items():
        person = name if name in whole else without_role(name)
        for slices in all_series.values():
            kept, doubled = one_per_position(slices)
            paired.left_out[DUPLICATE].extend(doubled)
            people[person][role].append(_Series(kept, read))
    for person in sorted(people):
        pairs = _pairs_of(people[person], paired)
        if len(pairs) >= max(min_slices, 1):
            paired.patients[person] = pairs
        else:
            paired.left_out[TOO_FEW].extend(header for both in pairs for header in both)
    return paired


def _with_roles(
    headers: Iterable[SliceHeader],
    root: Path,
    roles: Roles,
    read: Callable[[SliceHeader], Details],
) -> Iterator[tuple[SliceHeader, Role | None]]:
    """Yield each slice with its role; what a series is called is read once a folder."""
    called: dict[tuple[str, str, Path], Details] = {}
    for header in headers:
        place = header.study, header.series, header.path.parent
        if place not in called:
            called[place] = read(header)
        path = header.path.relative_to(root) if root in header.path.parents else header.path
        yield header, roles.of(path, called[place].description, called[place].kind)


def _pairs_of(series: dict[Role, list[_Series]], paired: Paired) -> tuple[Pair, ...]:
    """Pair the series of one patient, and sort out what has no partner."""
    partners = _partners(series["full"], series["low"])
    pairs: list[list[Pair]] = []
    kernels_differ = False
    for one, (other, positions) in partners.items():
        full, low = series["full"][one], series["low"][other]
        pairs.append([(full.slices[i], low.slices[j]) for i, j in positions])
        matched = {id(header) for both in pairs[-1] for header in both}
        alone = [h for h in (*full.slices, *low.slices) if id(h) not in matched]
        paired.left_out[UNPAIRED].extend(alone)
        kernels_differ |= len({full.kernel, low.kernel} - {""}) > 1
    taken = {other for other, _ in partners.values()}
    sides = (series["full"], series["low"], partners), (series["low"], series["full"], taken)
    for ours, theirs, used in sides:
        for lonely in (one for place, one in enumerate(ours) if place not in used):
            paired.left_out[_why_lonely(lonely, theirs)].extend(lonely.slices)
    low_of = {id(full): low for both in pairs for full, low in both}
    scans: dict[tuple[str, str], list[list[SliceHeader]]] = defaultdict(list)
    for both in pairs:
        first = both[0][0]
        scans[first.study, first.frame].append([full for full, _ in both])
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
    there = [header.position_mm for header in other.slices]
    found, free = [], 0
    for place, header in enumerate(one.slices):
        candidate = bisect_left(there, header.position_mm - SAME_PLACE_MM, lo=free)
        if candidate < len(there) and there[candidate] <= header.position_mm + SAME_PLACE_MM:
            found.append((place, candidate))
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


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return str(value or "") if isinstance(value, str | None) else " ".join(map(str, value))


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return the finite numbers of an attribute; nothing where one of them is none."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return ()
    try:
        listed = [value] if isinstance(value, str | int | float) else list(value)
        numbers = tuple(float(entry) for entry in listed)
    except (TypeError, ValueError):
        return ()
    return numbers if np.isfinite(numbers).all() else ()

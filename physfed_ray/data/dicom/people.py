"""Whose slices they are: who shares an id is told apart, and who has none goes by the folder.

Two errors are possible. To take two people for one patient costs a patient, and may mix two bodies
in one volume. To take one person for two is worse here: the same body may then be trained on and
tested with, and the scores are too good. So doubt never splits a person: where headers of one id
contradict each other in part, only the larger part is kept.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from physfed_ray.data.dicom.duplicates import image_digests
from physfed_ray.data.dicom.headers import SliceHeader
from physfed_ray.data.dicom.person import NOBODY, Person, is_placeholder
from physfed_ray.data.dicom.subfolders import patient_folder

TWO_PEOPLE = "two people under one id"

LeftOutSlices = dict[str, list[SliceHeader]]


def tell_apart(
    headers: Iterable[SliceHeader], root: Path
) -> tuple[list[SliceHeader], LeftOutSlices]:
    """Give every slice the id of the patient to whom it belongs; names are dropped on the way.

    Files of one PatientID are one patient's, unless their names, birth dates or sexes contradict
    each other. Files without an id (or with one that says nothing, such as ``ANONYMOUS``) are one
    patient's if they lie in one folder below the root, or share a study or a frame of reference;
    they are those of a patient with an id whose files of that study lie in the same folder.

    Args:
        headers: Slices as they were read, ``patient`` being the file's own id.
        root: The folder that is read.
    """
    named: dict[str, list[SliceHeader]] = defaultdict(list)
    nameless: list[SliceHeader] = []
    owners: dict[object, set[str]] = defaultdict(set)
    for header in headers:
        if is_placeholder(header.patient):
            nameless.append(header)
        else:
            named[header.patient].append(header)
            owners[_study_here(header, root)].add(header.patient)
    alone: list[SliceHeader] = []
    for header in nameless:
        ids = owners[_study_here(header, root)] if header.study else set()
        (named[min(ids)] if len(ids) == 1 else alone).append(header)
    told: list[SliceHeader] = []
    left_out: list[SliceHeader] = []
    groups = [(patient, slices, True) for patient, slices in named.items()]
    groups += [(patient, slices, False) for patient, slices in _by_folder(alone, root).items()]
    for patient, slices, has_id in groups:
        people, unclear = _people(patient, slices, has_id)
        left_out += unclear
        for id, theirs in people.items():
            told += [replace(header, patient=id, person=NOBODY) for header in theirs]
    return told, {TWO_PEOPLE: left_out} if left_out else {}


def _study_here(header: SliceHeader, root: Path) -> tuple[object, ...]:
    return patient_folder(header.path, root), header.study


@dataclass
class _Group:
    """Slices that nothing in their headers forbids to be one person's."""

    people: list[Person]
    slices: list[SliceHeader]
    studies: set[str] = field(default_factory=set)

    def add(self, person: Person, slices: Sequence[SliceHeader]) -> None:
        self.people.append(person)
        self.slices.extend(slices)
        self.studies.update(header.study for header in slices if header.study)

    def size(self) -> tuple[int, list[Person]]:
        return -len(self.slices), sorted(self.people)


def _people(
    patient: str, headers: Sequence[SliceHeader], has_id: bool
) -> tuple[dict[str, list[SliceHeader]], list[SliceHeader]]:
    """Return the people who share an id, and the slices of whom that is not clear."""
    by_person: dict[Person, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        by_person[header.person].append(header)
    if len(by_person) == 1:
        return {patient: list(headers)}, []
    groups, unclear = _without_contradiction(by_person)
    if len(groups) == 1:
        return {patient: groups[0].slices}, unclear
    kept: list[_Group] = []
    for group in sorted(groups, key=_Group.size):
        if any(_may_be_one(group, larger, has_id) for larger in kept):
            unclear.extend(group.slices)
        else:
            kept.append(group)
    if len(kept) == 1:
        return {patient: kept[0].slices}, unclear
    return {f"{patient} ({_mark(patient, group)})": group.slices for group in kept}, unclear


def _without_contradiction(
    by_person: Mapping[Person, Sequence[SliceHeader]],
) -> tuple[list[_Group], list[SliceHeader]]:
    """Join people who may be one; those who may be several of the groups are left over."""

    def fullest_first(person: Person) -> tuple[int, int, Person]:
        known = sum(map(bool, (person.name, person.birth, person.sex)))
        return -known, -len(by_person[person]), person

    groups: list[_Group] = []
    unclear: list[SliceHeader] = []
    for person in sorted(by_person, key=fullest_first):
        slices = by_person[person]
        fitting = [g for g in groups if not any(person.contradicts(other) for other in g.people)]
        if len(fitting) > 1:
            studies = {header.study for header in slices if header.study}
            fitting = [group for group in fitting if group.studies & studies]
            if len(fitting) != 1:
                unclear.extend(slices)
                continue
        if not fitting:
            fitting = [_Group([], [])]
            groups.append(fitting[0])
        fitting[0].add(person, slices)
    return groups, unclear


def _may_be_one(one: _Group, other: _Group, has_id: bool) -> bool:
    """Return whether something besides the id suggests that two groups are one person.

    Where there is no id, an equal name or birth date alone is chance.
    """
    if one.studies & other.studies:
        return True
    return has_id and any(a.has_in_common(b) for a in one.people for b in other.people)


def _mark(patient: str, group: _Group) -> str:
    """Return what tells people of one id apart, without saying who they are."""
    known = [
        min((person.name for person in group.people if person.name), default=()),
        min((person.birth for person in group.people if person.birth), default=""),
        min((person.sex for person in group.people if person.sex), default=""),
    ]
    return "person " + blake2b(repr((patient, known)).encode(), digest_size=4).hexdigest()


def _by_folder(headers: Sequence[SliceHeader], root: Path) -> dict[str, list[SliceHeader]]:
    """Group slices without an id by all that makes them one patient's."""
    folders = [patient_folder(header.path, root) for header in headers]
    top = [folder[:1] for folder in folders]
    distrusted = _made_up_uids(headers, top)
    # A series lies in one study: where it does not, nothing that is said about series is true.
    in_several_studies = {
        series for series, studies in _studies(headers).items() if len(studies) > 1
    }
    join = _Union(len(headers))
    for index, header in enumerate(headers):
        scope = top[index]
        if folders[index]:
            join(index, ("folder", folders[index]))
        if header.study:
            join(index, ("study", header.study, scope if header.study in distrusted else ()))
        if header.frame and header.series not in in_several_studies:
            join(index, ("frame", header.frame, scope if header.frame in distrusted else ()))
        if not folders[index] and not header.study:
            join(index, ("series", header.series))
        if header.person.name and header.person.birth:
            join(index, ("person", header.person.name, header.person.birth))
    parts: dict[int, list[int]] = defaultdict(list)
    for index in range(len(headers)):
        parts[join.root(index)].append(index)
    written: dict[str, set[int]] = defaultdict(set)
    for part, members in parts.items():
        for index in members:
            written[headers[index].patient].add(part)
    groups: dict[str, list[SliceHeader]] = {}
    for members in parts.values():
        slices = [headers[index] for index in members]
        ids = {header.patient for header in slices}
        # An id such as "0" that only one patient has may be meant: it stays.
        alone = len(ids) == 1 and len(written[min(ids)]) == 1
        name = min(ids) if alone and min(ids) else _name(slices, [folders[i] for i in members])
        groups[name] = slices
    return groups


def _studies(headers: Iterable[SliceHeader]) -> dict[str, set[str]]:
    studies: dict[str, set[str]] = defaultdict(set)
    for header in headers:
        studies[header.series].add(header.study)
    return studies


def _name(slices: Sequence[SliceHeader], folders: Sequence[tuple[str, ...]]) -> str:
    """Return what a patient without an id is called: the first folder, or the first study."""
    if any(folders):
        path = os.fsencode("/".join(min(folder for folder in folders if folder)))
        return "folder " + path.decode("utf-8", "backslashreplace")
    return "study " + min(header.study or header.series for header in slices)


def _made_up_uids(headers: Sequence[SliceHeader], top: Sequence[tuple[str, ...]]) -> set[str]:
    """Return the UIDs of studies and frames that stand for several: written by an anonymiser.

    In one series one image has a place; where two folders have different ones there, whatever
    wrote the files has written the same UIDs for different people.
    """
    first: dict[tuple[object, ...], tuple[SliceHeader, tuple[str, ...]]] = {}
    distrusted: set[str] = set()
    for header, folder in sorted(
        zip(headers, top, strict=True), key=lambda pair: (pair[1], pair[0].order, pair[0].number)
    ):
        place = (header.series, header.stack, header.order, round(header.position_mm, 2))
        other, elsewhere = first.setdefault(place, (header, folder))
        if elsewhere == folder or header.study in distrusted:
            continue
        if header.instance_uid == other.instance_uid:
            differ = len(set(image_digests([header, other]))) == 2
        else:
            differ = True
        if differ:
            distrusted |= {header.study, header.frame}
    return distrusted


class _Union:
    """Sets of indices that are joined by what they have in common."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))
        self._first: dict[tuple[object, ...], int] = {}

    def __call__(self, index: int, key: tuple[object, ...]) -> None:
        other = self._first.setdefault(key, index)
        one, two = sorted((self.root(index), self.root(other)))
        self._parent[two] = one

    def root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

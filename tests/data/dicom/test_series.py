"""Arranging any set of headers: nothing twice, nothing lost, nobody merged, no order but theirs."""

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from physfed_ray.data.dicom.headers import SliceHeader
from physfed_ray.data.dicom.person import Person, is_placeholder
from physfed_ray.data.dicom.series import arrange
from physfed_ray.data.dicom.source import DicomSource

ROOT = Path("/nowhere")
NAMES = ((), ("doe", "jane"), ("doe", "j"), ("miller", "bob"), ("millar", "bob"))
IDS = st.sampled_from(["", "ANON", "0", "A", "B"])
FEW = st.sampled_from(["", "1", "2"])
MAYBE = st.none() | st.integers(0, 4)

HEADERS = st.lists(
    st.builds(
        SliceHeader,
        path=st.sampled_from(["", "a", "b", "a/SE1", "a/SE2"]).map(Path),
        number=st.just(0),
        patient=IDS,
        study=FEW,
        date=st.sampled_from(["", "20200101"]),
        frame=FEW,
        series=FEW,
        series_number=st.integers(0, 1),
        instance_uid=st.sampled_from(["", "1", "2", "3", "4", "5"]),
        position_mm=st.sampled_from([math.nan, 0.0, 0.004, 1.0, 2.5, 5.0, 7.5]),
        spacing_mm=st.just((1.0, 1.0)),
        order=st.tuples(st.integers(0, 1), st.integers(0, 4)),
        person=st.builds(
            Person,
            name=st.sampled_from(NAMES),
            birth=st.sampled_from(["", "1950", "19500307", "19721130"]),
            sex=st.sampled_from(["", "M", "F"]),
        ),
        stack=st.sampled_from([(1,), (2,)]),
        time=FEW,
        location_mm=st.none() | st.sampled_from([0.0, 1.0, 2.5, 5.0]),
        instance=MAYBE,
        distance_mm=st.sampled_from([1.0, 2.5]),
    ),
    max_size=24,
).map(
    lambda headers: [
        # Files that do not exist are equal to none, so no pixels are needed.
        replace(header, path=ROOT / header.path / f"{index}", number=index + 1)
        for index, header in enumerate(headers)
    ]
)


def paths(headers) -> list[Path]:
    return [header.path for header in headers]


@settings(max_examples=300, deadline=None)
@given(headers=HEADERS, min_slices=st.integers(1, 3))
def test_every_file_is_kept_once_or_left_out_once(headers, min_slices: int):
    kept, left_out = arrange(headers, min_slices, ROOT)
    found = [path for slices in (*kept.values(), *left_out.values()) for path in paths(slices)]
    assert sorted(found) == sorted(paths(headers))
    assert all(len(slices) >= min_slices for slices in kept.values())
    assert all(math.isfinite(h.position_mm) for slices in kept.values() for h in slices)


@settings(max_examples=300, deadline=None)
@given(headers=HEADERS)
def test_two_patients_are_merged_only_if_ids_and_people_agree(headers):
    kept, _ = arrange(headers, 1, ROOT)
    read = {header.path: header for header in headers}
    for slices in kept.values():
        theirs = [read[path] for path in paths(slices)]
        for one in theirs:
            for other in theirs:
                known = {p for p in (one.patient, other.patient) if not is_placeholder(p)}
                assert len(known) < 2
                assert not one.person.contradicts(other.person)


@settings(max_examples=200, deadline=None)
@given(headers=HEADERS)
def test_no_person_is_split_who_may_be_one(headers):
    kept, _ = arrange(headers, 1, ROOT)
    read = {header.path: header for header in headers}
    people = [[read[path] for path in paths(slices)] for slices in kept.values()]
    for index, theirs in enumerate(people):
        for others in people[index + 1 :]:
            for one in theirs:
                for other in others:
                    if one.patient != other.patient or is_placeholder(one.patient):
                        continue
                    assert not one.study or one.study != other.study
                    assert not one.person.has_in_common(other.person)


@settings(max_examples=200, deadline=None)
@given(headers=HEADERS, seed=st.integers(0, 99))
def test_the_order_of_files_changes_nothing(headers, seed: int):
    shuffled = list(headers)
    random.Random(seed).shuffle(shuffled)
    before, after = arrange(headers, 1, ROOT), arrange(shuffled, 1, ROOT)
    assert {id: paths(slices) for id, slices in before[0].items()} == {
        id: paths(slices) for id, slices in after[0].items()
    }
    assert {why: sorted(paths(s)) for why, s in before[1].items()} == {
        why: sorted(paths(s)) for why, s in after[1].items()
    }


@settings(max_examples=200, deadline=None)
@given(headers=HEADERS, seed=st.integers(0, 99))
def test_names_and_folders_change_nothing_where_there_are_ids(headers, seed: int):
    """UIDs are made unique: of equals under one UID only bytes could tell which to keep."""
    headers = [
        replace(header, patient=f"P{header.patient}", instance_uid=f"{index}")
        for index, header in enumerate(headers)
    ]
    rng = random.Random(seed)
    numbers = rng.sample(range(100), len(headers))
    moved = [
        replace(header, path=ROOT / rng.choice("abc") / f"{number}", number=number)
        for header, number in zip(headers, numbers, strict=True)
    ]
    before, after = arrange(headers, 1, ROOT)[0], arrange(moved, 1, ROOT)[0]
    assert {id: [h.instance_uid for h in slices] for id, slices in before.items()} == {
        id: [h.instance_uid for h in slices] for id, slices in after.items()
    }


def test_files_may_lie_in_any_order_and_folder(tmp_path: Path, write_ct):
    def layout(root: Path, seed: int) -> dict[str, list[bytes]]:
        rng = random.Random(seed)
        for path in files:
            folder = root / rng.choice(["", "a", "b/c", "SE1"])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{rng.random()}").write_bytes(path.read_bytes())
        source = DicomSource(root)
        return {
            id: [hu.tobytes() for hu in source.load(id, None).slices] for id in source.ids()
        } | {"left out": sorted(source.summary()["left_out"].items())}

    files = []
    for index in range(24):
        patient = "AB"[index % 2]
        files.append(
            write_ct(
                tmp_path / "made" / f"{index}",
                np.full((20, 28), float(index), np.float32),
                patient=patient,
                PatientName=["Doe^Jane", "Miller^Bob", "DOE^JANE"][index % 3],
                StudyInstanceUID=f"1.2.{index % 6}",
                SOPInstanceUID=f"1.2.{index % 20}",
                AcquisitionNumber=index // 12,
                z_mm=index // 6,
            )
        )
    layouts = [layout(tmp_path / f"{seed}", seed) for seed in range(4)]
    assert all(found == layouts[0] for found in layouts)
    assert len(layouts[0]) > 3

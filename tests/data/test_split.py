"""Patients are dealt out fairly, reproducibly, and never twice."""

from itertools import chain

import pytest

from physfed_ray.data.split import Split, deal
from physfed_ray.errors import PhysFedError

COUNTS = {f"p{i:02}": 3 + 7 * i % 11 for i in range(20)}
CLIENTS: dict[str, tuple[str, ...] | None] = dict.fromkeys("abcd")


def everyone(split: Split) -> list[str]:
    return [*chain(*split.train.values()), *split.validation, *split.test, *split.unused]


@pytest.mark.parametrize("seed", range(5))
def test_every_patient_has_exactly_one_place(seed: int) -> None:
    split = deal(COUNTS, CLIENTS, 3, 2, seed)
    assert sorted(everyone(split)) == sorted(COUNTS)
    assert (len(split.test), len(split.validation), split.unused) == (3, 2, ())
    assert list(split.train) == list(CLIENTS)


@pytest.mark.parametrize("seed", range(5))
def test_slices_are_balanced(seed: int) -> None:
    split = deal(COUNTS, CLIENTS, 3, 2, seed)
    loads = [sum(COUNTS[patient] for patient in ids) for ids in split.train.values()]
    longest = max(COUNTS.values())
    assert max(loads) - min(loads) <= longest / 2


def test_one_patient_for_each_client_is_enough() -> None:
    counts = {"long": 1000, "x": 1, "y": 1, "z": 1, "t": 1}
    split = deal(counts, CLIENTS, ["t"], 0, 1)
    assert all(len(ids) == 1 for ids in split.train.values())


def test_seed_decides_and_nothing_else() -> None:
    assert deal(COUNTS, CLIENTS, 3, 2, 1) == deal(COUNTS, CLIENTS, 3, 2, 1)
    assert len({deal(COUNTS, CLIENTS, 3, 2, seed).test for seed in range(9)}) > 5


def test_listed_patients_win() -> None:
    clients = CLIENTS | {"b": ("p03", "p01")}
    split = deal(COUNTS, clients, ["p05"], ["p07", "p06"], 1)
    assert split.train["b"] == ("p03", "p01")
    assert (split.test, split.validation) == (("p05",), ("p07", "p06"))
    assert sorted(everyone(split)) == sorted(COUNTS)


def test_patients_beyond_all_lists_are_unused() -> None:
    split = deal(COUNTS, {"a": ("p00",), "b": ("p01",)}, ["p02"], 1, 1)
    assert len(split.unused) == len(COUNTS) - 4
    assert sorted(everyone(split)) == sorted(COUNTS)


def test_too_few_patients_are_refused_with_the_numbers() -> None:
    with pytest.raises(PhysFedError, match=r"20 patients but 21 are needed .*15 for the test"):
        deal(COUNTS, CLIENTS, 15, 2, 1)
    deal(COUNTS, CLIENTS, 14, 2, 1)


def test_unknown_patient_is_refused_with_a_suggestion() -> None:
    with pytest.raises(PhysFedError, match=r"clients.b.patients lists 'p3'.*did you mean 'p\d3'"):
        deal(COUNTS, CLIENTS | {"b": ("p3",)}, 1, 0, 1)
    with pytest.raises(PhysFedError, match=r"data.test_patients lists 'nobody'.*20 patients"):
        deal(COUNTS, CLIENTS, ["nobody"], 0, 1)


@pytest.mark.parametrize(
    ("clients", "test"), [({"a": ("p00", "p00")}, 1), ({"a": ("p00",)}, ["p00"])]
)
def test_doubly_listed_patient_is_refused(
    clients: dict[str, tuple[str, ...]], test: int | list[str]
) -> None:
    with pytest.raises(PhysFedError, match="only once"):
        deal(COUNTS, CLIENTS | clients, test, 0, 1)

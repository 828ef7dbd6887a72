"""Patients are dealt out fairly, reproducibly, and never twice."""

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_number_is_dealt_exactly_and_the_others_share_the_rest() -> None:
    split = deal(COUNTS, {"a": 3, "b": None, "c": 1, "d": None, "e": ("p05",)}, 3, 2, 1)
    assert (len(split.train["a"]), len(split.train["c"]), split.unused) == (3, 1, ())
    assert min(len(split.train[client]) for client in "bd") > 3
    assert sorted(everyone(split)) == sorted(COUNTS)


def test_numbers_leave_the_rest_unused_and_balance_slices() -> None:
    split = deal(COUNTS, dict.fromkeys("abcd", 2), 3, 2, 1)
    assert all(len(ids) == 2 for ids in split.train.values())
    assert len(split.unused) == 20 - 5 - 8
    assert sorted(everyone(split)) == sorted(COUNTS)


@pytest.mark.parametrize("seed", range(3))
def test_patients_are_reused_evenly_and_never_those_of_the_test(seed: int) -> None:
    clients = {f"c{i}": 3 for i in range(10)} | {"x": None, "y": ("p01",), "z": ("p01",)}
    split = deal(COUNTS, clients, 4, 2, seed, reuse=True)
    assert len({*split.test, *split.validation}) == 6
    assert not {*split.test, *split.validation, "p01"} & {*split.train["x"]}
    dealt = [split.train[client] for client in clients if client not in "yz"]
    assert all(len(set(ids)) == len(ids) for ids in split.train.values())
    uses = Counter(chain(*dealt))
    assert len(uses) == 13
    assert max(uses.values()) - min(uses.values()) <= 1
    assert not {*uses} & {*split.test, *split.validation}
    assert len({*dealt}) > 5, "clients do not share all of their patients"


def test_with_enough_patients_nothing_is_reused() -> None:
    assert deal(COUNTS, CLIENTS, 3, 2, 1, reuse=True) == deal(COUNTS, CLIENTS, 3, 2, 1)


def test_too_few_patients_are_refused_with_the_way_out() -> None:
    with pytest.raises(PhysFedError, match=r"20 patients but 25 .*20 for 4 .*data.reuse_patients"):
        deal(COUNTS, dict.fromkeys("abcd", 5), 3, 2, 1)
    assert len(deal(COUNTS, dict.fromkeys("abcd", 5), 3, 2, 1, reuse=True).train["d"]) == 5
    with pytest.raises(PhysFedError, match=r"20 patients but 21 .*16 for 4"):
        deal(COUNTS, dict.fromkeys("abcd", 16), 3, 2, 1, reuse=True)


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
    for reuse in (False, True):
        with pytest.raises(PhysFedError, match="only once"):
            deal(COUNTS, CLIENTS | clients, test, 0, 1, reuse=reuse)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=30),
    st.lists(st.none() | st.integers(1, 4), min_size=1, max_size=8),
    st.integers(1, 5),
    st.integers(0, 5),
    st.integers(0, 10**6),
)
def test_any_dealing_uses_nobody_twice_and_gives_what_was_asked_for(
    counts: list[int], wanted: list[int | None], test: int, validation: int, seed: int
) -> None:
    patients = {f"p{i}": count for i, count in enumerate(counts)}
    clients = {f"c{i}": number for i, number in enumerate(wanted)}
    needed = sum(number or 1 for number in wanted) + test + validation
    if needed > len(patients):
        with pytest.raises(
            PhysFedError, match=rf"{len(patients)} patients but {needed} are needed"
        ):
            deal(patients, clients, test, validation, seed)
        return
    split = deal(patients, clients, test, validation, seed)
    assert sorted(everyone(split)) == sorted(patients)
    assert (len(split.test), len(split.validation)) == (test, validation)
    assert list(split.train) == list(clients)
    for client, number in clients.items():
        assert len(split.train[client]) == number if number else split.train[client]
    assert not split.unused or None not in wanted


@pytest.mark.parametrize("server", [2, ["p04", "p11"]])
def test_the_server_s_patients_are_nobody_else_s(server: int | list[str]) -> None:
    split = deal(COUNTS, CLIENTS, 3, 2, 1, server=server)
    without = deal(COUNTS, CLIENTS, 3, 2, 1)
    assert sorted([*everyone(split), *split.server]) == sorted(COUNTS)
    if isinstance(server, int):
        assert len(split.server) == server
        assert (split.test, split.validation) == (without.test, without.validation)
    else:
        assert list(split.server) == server
    with pytest.raises(PhysFedError, match="2 for validation, 12 for the server, 4 for 4 clients"):
        deal(COUNTS, CLIENTS, 3, 2, 1, server=12)

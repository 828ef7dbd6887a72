"""Measured patients stay with their scanner: none is tested where it was not scanned."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.measured_split import deal_measured
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.measured import Scanner

COUNTS = {f"p{k}": 3 + k for k in range(12)}
ONE = [Scanner(PRESETS["paper-1"], ("a", "b"))]
TWO = [Scanner(PRESETS["paper-1"], ("a", "b")), Scanner(PRESETS["paper-2"], ("c",))]
LISTS = {"a": ("p0", "p1", "p2"), "b": ("p3", "p4"), "c": ("p5", "p6", "p7")}


def test_one_scanner_that_lists_nobody_is_dealt_as_simulated_data_are():
    (split,), unused = deal_measured(COUNTS, ONE, {"a": None, "b": 2}, {}, 3, 1, 7)
    assert len(split.test) == 3
    assert len(split.validation) == 1
    assert len(split.train["b"]) == 2
    assert len(split.train["a"]) == 12 - 6
    assert unused == ()
    everybody = [*split.test, *split.validation, *split.train["a"], *split.train["b"]]
    assert sorted(everybody) == sorted(COUNTS)


def test_listed_test_patients_are_taken_out_of_the_lists():
    clients = {"a": ("p0", "p1"), "b": None}
    (split,), _ = deal_measured(COUNTS, ONE, clients, {}, ("p1", "p9"), 0, 1)
    assert split.test == ("p1", "p9")
    assert split.train["a"] == ("p0",)
    assert not {"p0", "p1", "p9"} & set(split.train["b"])


def test_each_scanner_tests_its_own_patients():
    (ours, theirs), unused = deal_measured(COUNTS, TWO, LISTS, {"u": ("p11",)}, 2, 0, 1)
    assert set(ours.test) < {"p0", "p1", "p2", "p3", "p4"}
    assert set(theirs.test) < {"p5", "p6", "p7"}
    assert len(ours.test) == len(theirs.test) == 2
    assert {*ours.test, *ours.train["a"], *ours.train["b"]} == {"p0", "p1", "p2", "p3", "p4"}
    assert unused == ("p8", "p9", "p10")
    chosen = ("p3", "p6")
    (ours, theirs), _ = deal_measured(COUNTS, TWO, LISTS, {}, chosen, ("p0",), 1)
    assert (ours.test, ours.validation, theirs.test, theirs.validation) == (
        ("p3",), ("p0",), ("p6",), ())  # fmt: skip
    assert ours.train == {"a": ("p1", "p2"), "b": ("p4",)}
    assert theirs.train == {"c": ("p5", "p7")}


@pytest.mark.parametrize(
    ("clients", "unseen", "test", "words"),
    [
        (LISTS, {}, ("p3",), "no patient of c"),
        (LISTS, {}, ("p3", "p6", "p9"), "data.test_patients lists 'p9', which no client lists"),
        (LISTS, {}, ("p3", "p4", "p6"), "clients.b.patients: nobody is left"),
        (LISTS, {}, 3, "nobody is left"),
        (LISTS | {"c": ("p5", "p4")}, {}, 1, "lists 'p4', which clients.b.patients lists too"),
        (LISTS, {"u": ("p5",)}, 1, "lists 'p5'"),
        (LISTS, {"u": ("x5",)}, 1, "the data do not have"),
        (LISTS, {}, ("p3", "p66"), "did you mean 'p6'"),
    ],
)
def test_what_cannot_be_is_refused(clients, unseen, test, words: str):
    with pytest.raises(PhysFedError, match=words):
        deal_measured(COUNTS, TWO, clients, unseen, test, 0, 1)


@given(
    lists=st.lists(st.integers(2, 4), min_size=2, max_size=5),
    kinds=st.lists(st.integers(0, 2), min_size=5, max_size=5),
    test=st.integers(1, 2),
    validation=st.integers(0, 1),
    seed=st.integers(0, 50),
)
def test_nobody_is_used_twice_or_elsewhere(lists, kinds, test, validation, seed):
    counts = {f"p{k}": 1 for k in range(30)}
    clients, free = {}, iter(counts)
    for index, number in enumerate(lists):
        clients[f"c{index}"] = tuple(next(free) for _ in range(number))
    groups: dict[int, list[str]] = {}
    for name, kind in zip(clients, kinds, strict=False):
        groups.setdefault(kind, []).append(name)
    scanners = [
        Scanner(replace(PRESETS["paper-1"], views=100 + kind), tuple(names))
        for kind, names in groups.items()
    ]
    enough = all(
        sum(len(clients[name]) - 1 for name in scanner.clients) >= test + validation
        for scanner in scanners
    )
    if not enough:
        with pytest.raises(PhysFedError, match="nobody is left"):
            deal_measured(counts, scanners, clients, {}, test, validation, seed)
        return
    splits, unused = deal_measured(counts, scanners, clients, {}, test, validation, seed)
    used = list(unused)
    for scanner, split in zip(scanners, splits, strict=True):
        own = {patient for name in scanner.clients for patient in clients[name]}
        assert set(split.test) | set(split.validation) <= own
        assert (len(split.test), len(split.validation)) == (test, validation)
        for name in scanner.clients:
            assert set(split.train[name]) <= set(clients[name])
            used += split.train[name]
        used += [*split.test, *split.validation]
    assert sorted(used) == sorted(counts)

"""When clients can be reached, from a file or drawn."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.federation import Availability
from physfed_ray.federation.availability import make_availability

HEADER = "client,from_round,to_round\n"
ROUNDS = range(1, 9)


def of_file(path: Path, text: str, encoding: str = "utf-8") -> list[str]:
    """Return for the clients a, b and c when they can be reached, as a string of + and -."""
    path.write_text(text, encoding=encoding)
    available = make_availability(Availability(csv=path), 1, ["a", "b", "c"])
    return ["".join("-+"[available(c, number)] for number in ROUNDS) for c in range(3)]


def test_without_settings_everybody_always_can() -> None:
    assert make_availability(None, 1, ["a"])(0, 12345)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # spreadsheets write the latter
def test_a_file_says_when(tmp_path: Path, encoding: str) -> None:
    text = HEADER + "a,2,3\nc,8,100\na,3,5\nc,1,1\n"
    assert of_file(tmp_path / "a.csv", text, encoding) == ["-++++---", "++++++++", "+------+"]


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    text = "to_round,client,from_round\r\n3,b,2\r\n"
    assert of_file(tmp_path / "a.csv", text) == ["++++++++", "-++-----", "++++++++"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with a line of the columns client,from_round,to_round"),
        ("client,from_round\na,1\n", "must begin with a line of the columns"),
        (HEADER + "a,1,2\nb,4,3\n", "line 3: from_round .* not '4' and '3'"),
        (HEADER + "a,0,3\n", "line 2"),
        (HEADER + "a,1\n", "line 2: .* not '1' and None"),
        (HEADER + "a,1.5,3\n", "whole numbers"),
        (HEADER + "d,1,2\n", "names 'd', which is not a client of this experiment"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PhysFedError, match=words) as refusal:
        of_file(tmp_path / "hours.csv", text)
    assert "hours.csv" in str(refusal.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PhysFedError, match=r"federation\.availability\.csv .*hours\.csv"):
        make_availability(Availability(csv=tmp_path / "hours.csv"), 1, ["a"])
    (tmp_path / "hours.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PhysFedError, match="cannot be read"):
        make_availability(Availability(csv=tmp_path / "hours.csv"), 1, ["a"])


def drawn(on: float, off: float, clients: int = 3, rounds: int = 20, seed: int = 1) -> np.ndarray:
    """Return (clients, rounds) bool."""
    settings = Availability(on_rounds=on, off_rounds=off)
    available = make_availability(settings, seed, [f"c{i}" for i in range(clients)])
    return np.array([[available(c, n) for n in range(1, rounds + 1)] for c in range(clients)])


def test_drawn_periods_have_the_means_asked_for() -> None:
    there = drawn(6, 2, clients=40, rounds=1000)
    assert there.mean() == pytest.approx(0.75, abs=0.02)
    assert there[:, :2].mean() == pytest.approx(0.75, abs=0.15)  # from the first round on
    lengths: dict[bool, list[int]] = {True: [], False: []}
    for client in there:
        for state, run in [(s, len(list(r))) for s, r in groupby(client)][1:-1]:
            lengths[bool(state)].append(run)
    assert np.mean(lengths[True]) == pytest.approx(6, rel=0.08)
    assert np.mean(lengths[False]) == pytest.approx(2, rel=0.08)


def test_drawn_periods_belong_to_the_seed_and_the_client_s_name_alone() -> None:
    few, many = drawn(3, 3), drawn(3, 3, clients=9, rounds=50)
    assert np.array_equal(few, many[:3, :20])
    assert not np.array_equal(few, drawn(3, 3, seed=2))
    assert len({client.tobytes() for client in many}) == 9


def test_asking_for_a_later_round_first_changes_nothing() -> None:
    settings = Availability(on_rounds=2, off_rounds=2)
    forwards, backwards = (make_availability(settings, 4, ["a"]) for _ in range(2))
    expected = [forwards(0, n) for n in range(1, 31)]
    assert [backwards(0, n) for n in range(30, 0, -1)] == expected[::-1]


@given(
    st.floats(1, 50),
    st.floats(1, 50),
    st.integers(0, 10**6),
    st.lists(st.integers(1, 300), min_size=1, max_size=40),
)
def test_what_is_drawn_for_a_round_depends_on_no_earlier_question(
    on: float, off: float, seed: int, asked: list[int]
) -> None:
    settings = Availability(on_rounds=on, off_rounds=off)
    known = make_availability(settings, seed, ["a", "b"])
    answers = [(known(0, number), known(1, number)) for number in asked]
    for number, answer in zip(asked, answers, strict=True):
        fresh = make_availability(settings, seed, ["a", "b"])
        assert (fresh(0, number), fresh(1, number)) == answer

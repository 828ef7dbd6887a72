"""The harness sees what it is to see: each way of failing, with the seed that repeats it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import harness
from tests.fuzz.faulty import WAYS
from tests.fuzz.harness import Attempt, Outcome, WrongError, summarise

ROOT = Path(__file__).parents[2]


def test_every_way_of_failing_is_found_with_its_seed() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.faulty"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    outcomes = [Outcome(**values) for values in json.loads(printed)]
    assert [outcome.seed for outcome in outcomes] == list(range(len(WAYS)))
    assert {WAYS[o.seed].__name__: o.result for o in outcomes} == {
        "nothing": harness.SAME,
        "refuses": harness.REFUSED,
        "warns": harness.TOLD,
        "lies": harness.WRONG,
        "raises": harness.TRACEBACK,
        "sleeps": harness.HANG,
        "dies": harness.DIED,
        "eats": harness.MEMORY,
        "mumbles": harness.MESSAGE,
        "recurses": harness.TRACEBACK,
    }
    found = summarise(outcomes)
    assert found["attempts"] == len(WAYS)
    assert sorted(finding["seed"] for finding in found["findings"]) == [3, 4, 5, 6, 7, 8, 9]


def test_another_result_needs_a_word() -> None:
    attempt = Attempt(random.Random(1), Path())
    with pytest.raises(WrongError, match="fewer"):
        attempt.changed("fewer slices")
    attempt.told.append("one slice is left out")
    assert attempt.changed("fewer slices") == harness.TOLD

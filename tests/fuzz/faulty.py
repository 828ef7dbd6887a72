"""A kind of input that fails in every way; run as a module it prints what the harness sees."""

import json
import logging
import os
import random
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from physfed_ray.errors import PhysFedError
from tests.fuzz import harness
from tests.fuzz.harness import SAME, Attempt, Kind, sweep


def nothing(attempt: Attempt) -> str:
    return SAME


def refuses(attempt: Attempt) -> str:
    raise PhysFedError("the file is damaged; copy it again")


def warns(attempt: Attempt) -> str:
    logging.getLogger("physfed_ray.data").warning("a slice is left out")
    return attempt.changed("fewer slices")


def lies(attempt: Attempt) -> str:
    return attempt.changed("another value")


def raises(attempt: Attempt) -> str:
    raise KeyError("round")


def sleeps(attempt: Attempt) -> str:
    time.sleep(60)
    return SAME


def dies(attempt: Attempt) -> str:
    os.kill(os.getpid(), 9)
    return SAME


def eats(attempt: Attempt) -> str:
    return str(np.zeros(5 * 2**30, np.uint8).size)


def mumbles(attempt: Attempt) -> str:
    raise PhysFedError("'NoneType' object has no attribute 'x'")


def recurses(attempt: Attempt) -> str:
    return recurses(attempt)


WAYS = (nothing, refuses, warns, lies, raises, sleeps, dies, eats, mumbles, recurses)


class Faulty(Kind):
    """Fails as the seed says."""

    name = "faulty"

    def attempt(self, attempt: Attempt) -> str:
        """Find the seed by the first number that it gives."""
        first = attempt.rng.random()
        (seed,) = (s for s in range(len(WAYS)) if random.Random(f"faulty {s}").random() == first)
        attempt.damage.append(WAYS[seed].__name__)
        return WAYS[seed](attempt)


if __name__ == "__main__":
    harness.LIMIT_S, harness.GRACE_S, harness.PATIENCE = 1.0, 1.0, 2
    with tempfile.TemporaryDirectory() as folder:
        found = sweep(Faulty(), range(len(WAYS)), Path(folder))
    print(json.dumps([asdict(outcome) for outcome in found]))

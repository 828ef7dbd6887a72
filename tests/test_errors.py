"""Exceptions that say what was being done, also in another process."""

import pickle

import pytest

from physfed_ray.errors import DivergedError, PhysFedError, at_work, sentence


def failed(error: Exception) -> Exception:
    outer, inner = at_work("after round 3"), at_work("while evaluating client c1")
    with pytest.raises(type(error)) as raised, outer, inner:
        raise error
    return pickle.loads(pickle.dumps(raised.value))


def test_a_failure_says_what_was_being_done() -> None:
    words = "while evaluating client c1, after round 3"
    assert sentence(failed(PhysFedError("a file\nis broken"))) == f"{words}: a file is broken"
    assert sentence(failed(ValueError("no such axis"))) == f"{words}: ValueError: no such axis"
    assert sentence(failed(MemoryError())) == f"{words}: MemoryError"
    assert isinstance(failed(DivergedError("nan")), DivergedError)
    assert sentence(PhysFedError("a file is broken")) == "a file is broken"


def test_what_another_process_hands_over_is_told_as_what_it_was() -> None:
    class RayTaskError(Exception):
        cause = failed(ValueError("no such axis"))

    error = RayTaskError("a long\ntraceback")
    error.add_note("after round 4")
    assert sentence(error) == (
        "while evaluating client c1, after round 3, after round 4: ValueError: no such axis"
    )

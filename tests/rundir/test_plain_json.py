"""JSON without NaN."""

import json
import math

from physfed_ray.rundir.plain_json import json_line


def test_numbers_that_are_not_finite_become_null() -> None:
    value = {"a": [1.5, math.nan, (math.inf, "x")], "b": {"c": -math.inf, "d": True}, "e": None}
    line = json_line(value)
    assert "NaN" not in line
    assert "Infinity" not in line
    assert json.loads(line) == {
        "a": [1.5, None, [None, "x"]],
        "b": {"c": None, "d": True},
        "e": None,
    }

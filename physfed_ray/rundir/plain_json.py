"""JSON that any program reads: Python would write NaN, which is none."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_line(value: Any) -> str:
    """Return a value as one line of JSON; numbers that are not finite become null."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value

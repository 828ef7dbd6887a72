"""Numbers as the benchmarks print them."""

from typing import Any


def rounded(value: Any, digits: int = 4) -> Any:
    """Return the same structure with floats to so many significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value

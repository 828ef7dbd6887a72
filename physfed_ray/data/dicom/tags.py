"""Reading tags that may hold anything: text, numbers with letters in them, broken numbers.

Only for tags that break ties or say who and when; what changes a pixel is read strictly elsewhere.
"""

import math
import re
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset


def values(dataset: Dataset, keyword: str) -> list[Any]:
    """Return an attribute's values as a list, empty where it is absent or blank."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def text(dataset: Dataset, keyword: str) -> str:
    """Return an attribute as text without blanks around it, even where its value is malformed."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises whatever its conversion runs into.
        value = _raw(dataset, keyword)
    return "" if value is None else str(value).strip(" \0\t\r\n")


def _raw(dataset: Dataset, keyword: str) -> str:
    element = dataset.get_item(keyword)
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        return element.value.decode("ascii", "ignore")
    return ""


def whole_number(dataset: Dataset, keyword: str) -> int | None:
    """Return the first whole number in an attribute ("3A" gives 3), None where there is none."""
    found = re.search(r"[-+]?\d{1,18}", text(dataset, keyword))
    return int(found.group()) if found else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return an attribute's (first) value as a finite number, None where it is none."""
    try:
        value = float(text(dataset, keyword).strip("[]").split("\\")[0].split(",")[0])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """Return an attribute's values as finite numbers, empty where any of them is none."""
    try:
        found = [float(value) for value in values(dataset, keyword)]
    except Exception:
        return []
    return found if all(map(math.isfinite, found)) else []

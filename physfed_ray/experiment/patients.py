"""Keys that name patients: a list of ids, or how many."""

from typing import Any

from physfed_ray.experiment.explain import shown
from physfed_ray.experiment.settings import LONGEST_ID, MOST


def patients(value: Any, fewest: int) -> int | tuple[str, ...]:
    """Return a number of patients, or a list of patient ids, as it was checked.

    Args:
        value: What the file says.
        fewest: The least number of patients.

    Raises:
        ValueError: It is neither, or an id is not text, too long, or named twice.
    """
    if isinstance(value, int) and not isinstance(value, bool) and fewest <= value <= MOST:
        return value
    if not isinstance(value, list | tuple) or not (value or not fewest):
        raise ValueError(
            f"must be a number of patients from {fewest} to {MOST} or a list of patient ids (text, "
            f"in quotes), not {shown(value)}"
        )
    for entry in value:
        if not isinstance(entry, str):
            raise ValueError(_not_text(entry))
        if not entry.strip() or len(entry) > LONGEST_ID:
            raise ValueError(f"{shown(entry)} is no patient id: give 1 to {LONGEST_ID} characters")
    if len(set(value)) != len(value):
        raise ValueError("the list names a patient twice")
    return tuple(value)


def _not_text(entry: Any) -> str:
    if isinstance(entry, list | tuple | dict) or entry is None:
        return f"the list must hold patient ids (text, in quotes), not {shown(entry)}"
    written = shown(entry)
    kind = "true or false" if isinstance(entry, bool) else "a number"
    if not isinstance(entry, bool | int | float):
        kind = f"a {type(entry).__name__}"
    return (
        f"YAML reads the patient id {written} as {kind}: put it in quotes, as it is written in "
        + ('the patient\'s files (for example "0012")')
    )

"""What every group of keys has in common: frozen, strict, sensible numbers, paths and names."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic.fields import FieldInfo

from physfed_ray.experiment.explain import shown

LARGEST = 1e12
"""Of any number; most keys have a lower bound of their own."""
LARGEST_SEED = 2**63 - 1
MOST = 1_000_000
"""Of rounds, patients, slices and whatever else is counted."""
LONGEST_S = 1e7
"""Of a time to wait, s: four months."""
LONGEST_NAME = 100
"""Of a name that becomes part of files' names, characters: three of them fit into 255 bytes with
room for what is added."""
LONGEST_ID = 255
"""Of a patient's id, characters."""
SEEDS = ("seed", "seeds", "final_seeds")
LOOKED_AT_ELSEWHERE = ("provenance", "experiment", "settings", "scales")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _relative_to_file(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    base = (info.context or {}).get("base", Path.cwd())
    try:
        path = Path(base, Path(value).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{shown(value)} is no path: {error}") from None
    if len(os.fsencode(path)) > 4095 or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise ValueError(f"{shown(value)} is longer than a path, or one of its names, can be")
    return path


RelativePath = Annotated[Path, BeforeValidator(_relative_to_file)]


def operational(default: Any = ..., **keys: Any) -> Any:
    """Return the field of a key that says where, how fast or how patiently a run goes.

    It does not decide the result, so that it may change when a run is resumed.

    Args:
        default: As of ``pydantic.Field``.
        **keys: Likewise.
    """
    return Field(default, json_schema_extra={"operational": True}, **keys)


def is_operational(field: FieldInfo) -> bool:
    """Say whether a key was declared with ``operational``."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("operational") is True


def _numbers(value: Any) -> Iterator[int | float]:
    """Yield the numbers in a value that has been read."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _numbers(entry)
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _numbers(entry)


def largest_of(key: str) -> float:
    """Return how large a number may be at a key that names no bound of its own."""
    if key in LOOKED_AT_ELSEWHERE:
        return math.inf
    return LARGEST_SEED if key in SEEDS else LARGEST


def refuse_absurd(value: Any, largest: float) -> None:
    """Refuse a value that holds a number which is infinite, none at all, or beyond all sense.

    Args:
        value: A value that has been read; lists and groups in it are looked at as well.
        largest: How large a number may be.

    Raises:
        ValueError: It does.
    """
    if largest == math.inf:
        return
    for number in _numbers(value):
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"must be a finite number, not {shown(number)}")
        if abs(number) > largest:
            raise ValueError(f"must be at most {largest:g} in size, not {shown(number)}")


def refuse_bool(written: Any, read: Any) -> None:
    """Refuse true and false where they were read as 1 and 0.

    Args:
        written: The value in the file.
        read: What it was taken for.

    Raises:
        ValueError: A number was not written as one.
    """
    if isinstance(written, bool) and not isinstance(read, bool) and isinstance(read, int | float):
        raise ValueError(f"must be a number, not {str(written).lower()}")
    if isinstance(written, list | tuple) and isinstance(read, list | tuple):
        for one, other in zip(written, read, strict=False):
            refuse_bool(one, other)


class Settings(BaseModel):
    """A frozen group of keys that refuses unknown ones, and numbers beyond all sense."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _sensible(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        read = handler(value)
        refuse_bool(value, read)
        refuse_absurd(read, largest_of(str(info.field_name)))
        return read

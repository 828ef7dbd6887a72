"""What every group of keys has in common: frozen, strict, paths relative to the file."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo


def _relative_to_file(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    base = (info.context or {}).get("base", Path.cwd())
    return Path(base, Path(value).expanduser()).resolve()


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


class Settings(BaseModel):
    """A frozen group of keys that refuses unknown ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation in (int, float, int | None, float | None):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value

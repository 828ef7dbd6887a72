"""A name of a registry with the settings that belong to it, written as one group of keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.explain import explain
from physfed_ray.experiment.settings import largest_of, refuse_absurd, refuse_bool
from physfed_ray.registry import Registry

_NAMES_ONLY: ContextVar[bool] = ContextVar("names_only", default=False)


@contextmanager
def names_only() -> Iterator[None]:
    """Check names alone, not their settings: those stand in files that import torch."""
    token = _NAMES_ONLY.set(True)
    try:
        yield
    finally:
        _NAMES_ONLY.reset(token)


def only_names() -> bool:
    """Say whether names alone are being checked."""
    return _NAMES_ONLY.get()


class Unread(BaseModel):
    """Settings that have not been looked at."""


class Named(BaseModel):
    """A name and its settings, already checked against the schema that the name brings."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: ClassVar[str]
    """Path of the group in the file."""
    example: ClassVar[str]
    usual: ClassVar[str | None] = None
    """The name where none is given; None: one is required."""
    registry: ClassVar[Registry[Any]]
    """Where the names are; each stands for a class with its ``Settings``."""

    name: str = Field(description="a name of the registry")
    settings: SerializeAsAny[BaseModel]

    @classmethod
    def schema_of(cls, name: str) -> type[BaseModel]:
        """Return the settings' schema.

        Raises:
            PhysFedError: There is no such name.
        """
        schema: type[BaseModel] = cls.registry.find(name).Settings
        return schema

    @model_validator(mode="wrap")
    @classmethod
    def _check_settings(
        cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and cls.usual is not None:
            value = {"name": cls.usual, **value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"give at least 'name', for example {cls.example}")
        name = value["name"]
        try:
            if only_names() and name in cls.registry:
                unread: Any = cls.model_construct(name=name, settings=Unread())
                return cast(Self, unread)
            model = cls.schema_of(name)
        except PhysFedError as error:
            raise PhysFedError(f"{cls.key}.name: {error}") from None
        entries = {key: entry for key, entry in value.items() if key != "name"}
        return handler({"name": name, "settings": cls._read(model, entries, info)})

    @classmethod
    def _read(cls, model: type[BaseModel], entries: dict[Any, Any], info: ValidationInfo) -> Any:
        """Return checked settings; also those of other packages hold sensible numbers alone.

        Raises:
            PhysFedError: An entry does not fit.
        """
        for key in model.model_fields:
            cls._refuse(key, entries.get(key))
        try:
            settings = model.model_validate(entries, context=info.context)
        except ValidationError as error:
            raise PhysFedError(explain(error, model, f"{cls.key}.")) from None
        for key in model.model_fields:
            cls._refuse(key, getattr(settings, key), entries.get(key))
        return settings

    @classmethod
    def _refuse(cls, key: str, read: Any, written: Any = None) -> None:
        try:
            refuse_bool(written, read)
            refuse_absurd(read, largest_of(key))
        except ValueError as error:
            raise PhysFedError(f"{cls.key}.{key}: {error}") from None

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings.model_dump(mode="json")}

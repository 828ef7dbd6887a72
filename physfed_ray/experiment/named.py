"""A name of a registry with the settings that belong to it, written as one group of keys."""

from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.file import explain
from physfed_ray.registry import Registry


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

    @model_validator(mode="before")
    @classmethod
    def _check_settings(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and cls.usual is not None:
            value = {"name": cls.usual, **value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"give at least 'name', for example {cls.example}")
        try:
            model = cls.schema_of(value["name"])
        except PhysFedError as error:
            raise PhysFedError(f"{cls.key}.name: {error}") from None
        entries = {key: entry for key, entry in value.items() if key != "name"}
        try:
            settings = model.model_validate(entries, context=info.context)
        except ValidationError as error:
            raise PhysFedError(explain(error, model, f"{cls.key}.")) from None
        return {"name": value["name"], "settings": settings}

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings.model_dump(mode="json")}

"""Keys under ``reports`` and ``method``: names of a registry, checked with their settings."""

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.file import did_you_mean, explain
from physfed_ray.experiment.settings import Settings
from physfed_ray.methods.registry import get_method
from physfed_ray.reports.registry import ENCODERS, REPORTERS


class Reports(Settings):
    """How a slice's anatomy becomes f_t."""

    reporter: str = Field("measured", description="what writes a report from the low-dose slice")
    encoder: str = Field("minilm", description="what turns the report into its embedding f_t")

    @field_validator("reporter", "encoder")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        known = REPORTERS if info.field_name == "reporter" else ENCODERS
        if value not in known:
            raise ValueError(f"no {info.field_name} is called '{value}'; "
                             f"{did_you_mean(value, known)}")  # fmt: skip
        return value


class MethodSpec(BaseModel):
    """A method's name and its settings, already checked against the method's own schema."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="a name that `physfed methods` prints")
    settings: SerializeAsAny[BaseModel]

    @model_validator(mode="before")
    @classmethod
    def _check_settings(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError("give at least 'name', for example {name: fedavg}")
        try:
            model = get_method(value["name"]).Settings
        except PhysFedError as error:
            raise PhysFedError(f"method.name: {error}") from None
        entries = {key: entry for key, entry in value.items() if key != "name"}
        try:
            return {"name": value["name"], "settings": model(**entries)}
        except ValidationError as error:
            raise PhysFedError(explain(error, model, "method.")) from None

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings.model_dump(mode="json")}

"""Whether two experiments give the same result: what resuming a run compares."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from physfed_ray.experiment import Experiment
from physfed_ray.experiment.explain import nested_model
from physfed_ray.experiment.named import Named
from physfed_ray.experiment.settings import is_operational


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], schema: type[BaseModel] = Experiment
) -> list[str]:
    """Return the keys in which two experiments differ and that decide the result.

    Operational keys are passed over. A key that ``before`` does not have counts as its default of
    now, and one that the schema no longer has is not looked at.

    Args:
        before: An experiment as a run wrote it, perhaps by another version.
        now: All keys of an experiment, as this version writes it.
        schema: Of the files; that of experiments by default.

    Returns:
        Dotted paths, in the order of the schema.
    """
    return _in_group(schema, before, now, "")


def _in_group(
    model: type[BaseModel], before: Mapping[str, Any], now: Mapping[str, Any], where: str
) -> list[str]:
    if issubclass(model, Named):
        if before.get("name") != now["name"]:
            return [where.rstrip(".")]
        model = model.schema_of(now["name"])
    found: list[str] = []
    for key, value in now.items():
        field = model.model_fields.get(key, FieldInfo())
        if not is_operational(field):
            old = before[key] if key in before else _default(field)
            found += _in_value(nested_model(field.annotation), old, value, where + key)
    return found


def _in_value(model: type[BaseModel] | None, before: Any, now: Any, where: str) -> list[str]:
    if model is not None and isinstance(before, dict) and isinstance(now, dict):
        return _in_group(model, before, now, f"{where}.")
    lists = isinstance(before, list) and isinstance(now, list) and len(before) == len(now)
    if model is not None and lists:
        pairs = enumerate(zip(before, now, strict=True))
        return [d for i, (a, b) in pairs for d in _in_value(model, a, b, f"{where}.{i}")]
    return [] if before == now else [where]


def _default(field: FieldInfo) -> Any:
    """Return a key's default as a file holds it; a key without one equals nothing."""
    default = field.get_default(call_default_factory=True, validated_data={})
    return object() if default is PydanticUndefined else to_jsonable_python(default)

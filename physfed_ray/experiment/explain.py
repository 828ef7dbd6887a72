"""What pydantic finds wrong in a file, as sentences: key, what is wrong, what to do."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

MOST_FINDINGS = 4
NAME_WORDS = "letters, digits, '.', '_' and '-', beginning with one of the first two"
WORDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dataclass_type": "a group of keys",
    "dict_type": "a group of keys",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of a sensible size",
    "int_type": "a whole number",
    "is_instance_of": "a group of keys",
    "mapping_type": "a group of keys",
    "model_attributes_type": "a group of keys",
    "model_type": "a group of keys",
    "none_required": "null",
    "path_type": "a path",
    "string_pattern_mismatch": NAME_WORDS,
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text of at least {min_length} characters",
    "string_type": "text (put it in quotes)",
    "string_unicode": "text without half characters (surrogates)",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}
"""What each finding of pydantic expects; for others, its own "Input should be ..." reads well."""

MOST_SHOWN, DEEPEST_SHOWN, LONGEST_SHOWN = 6, 2, 60
LONGEST_MESSAGE = 1000


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence part that names the closest known name and all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean '{close[0]}'? " if close else "") + "allowed: " + ", ".join(names)


def shown(value: Any) -> str:
    """Return a value as YAML writes it, on one line and cut short where it is long."""
    part = _part(value, DEEPEST_SHOWN)
    if isinstance(value, str):
        return repr(part) + (f" ({len(value)} characters)" if part != value else "")
    text = yaml.safe_dump(part, default_flow_style=True, width=10**6, allow_unicode=True)
    return " ".join(text.removesuffix("...\n").split())


def _part(value: Any, depth: int) -> Any:
    """Return so much of a value as a message can show."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_SHOWN else value[: LONGEST_SHOWN // 2] + "…"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return value
    if not isinstance(value, Mapping | list | tuple):
        return _part(str(value), depth)
    if not depth:
        return "…" if value else []
    more = len(value) > MOST_SHOWN
    if isinstance(value, Mapping):
        entries = list(value.items())[:MOST_SHOWN]
        group = {_part(key, 0): _part(entry, depth - 1) for key, entry in entries}
        return group | ({"…": "…"} if more else {})
    return [_part(entry, depth - 1) for entry in value[:MOST_SHOWN]] + ["…"] * more


def short(message: object) -> str:
    """Return a message on one line, with values of endless length cut short."""
    line = re.sub(r"\S{120,}", lambda found: f"{found[0][:30]}…", " ".join(str(message).split()))
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…"


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Return pydantic's findings as one sentence with the path of each key.

    Args:
        error: What pydantic found.
        model: The model that was validated.
        prefix: Path of that model in the file, for example ``"method."``.
    """
    findings: dict[str, list[Mapping[str, Any]]] = {}
    entries: list[dict[str, Any]] = [dict(entry) for entry in error.errors()]
    for entry in entries:
        entry["loc"] = _keys(model, entry["loc"])
    places = [entry["loc"] for entry in entries]
    for entry in entries:
        if not any(_contains(entry["loc"], place) for place in places):
            path = (prefix + ".".join(_key(part) for part in entry["loc"])).rstrip(".")
            findings.setdefault(path, []).append(entry)
    sentences = [_finding(path, found, model) for path, found in findings.items()]
    more = len(sentences) - MOST_FINDINGS
    return "; ".join(sentences[:MOST_FINDINGS]) + (f"; and {more} more" if more > 0 else "")


def _keys(model: type[BaseModel], location: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return a location without what is no key of the file: the branch of a union."""
    kept: list[int | str] = []
    here: Any = model
    for part in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        elif (isinstance(part, str) and not _is_dict(here)) or part == "[key]":
            continue
        else:
            here = next((arg for arg in reversed(get_args(here)) if arg is not Ellipsis), None)
        here = nested_model(here) if _names_one(here) else here
        kept.append(part)
    return tuple(kept)


def _is_dict(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict or any(
        map(_is_dict, get_args(annotation))
    )


def _names_one(annotation: Any) -> bool:
    """Say whether a type is one group of keys, perhaps an optional one, and no list of them."""
    listed = getattr(annotation, "__origin__", None) in (tuple, list, dict)
    return not listed and nested_model(annotation) is not None


def _key(part: int | str) -> str:
    text = str(part)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN // 2]}…"


def _contains(outer: Sequence[int | str], inner: Sequence[int | str]) -> bool:
    """Say whether ``inner`` lies below ``outer``, whose finding then only repeats it."""
    return len(inner) > len(outer) > 0 and tuple(inner[: len(outer)]) == tuple(outer)


def _finding(path: str, entries: Sequence[Mapping[str, Any]], model: type[BaseModel]) -> str:
    """Return what is wrong at one key: one finding, or what each branch of a union expects."""
    first = entries[0]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        return f"{path}: unknown key; {did_you_mean(str(first['loc'][-1]), known)}"
    if kind == "invalid_key":
        known = _keys_at(model, first["loc"][:-1])
        return f"{path}: a key here is a name, not a number; allowed: {', '.join(known)}"
    if kind == "missing":
        what = "key" if isinstance(first["loc"][-1], str) else "entry of the list"
        return f"{path}: this {what} is required"
    if kind == "value_error":
        return f"{path}: {short(context['error'])}" if path else short(context["error"])
    expected = " or ".join(dict.fromkeys(map(_expected, entries)))
    where = f"{path}: must be" if path else "the file must hold"
    return f"{where} {expected}, not {shown(first['input'])}"


def _expected(entry: Mapping[str, Any]) -> str:
    kind, context = entry["type"], entry.get("ctx", {})
    if kind in WORDS:
        return WORDS[kind].format(**context)
    if kind == "value_error":
        return short(context["error"]).removeprefix("must be ")
    message: str = entry["msg"]
    return message.removeprefix("Input should be ")


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = nested_model(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """Return the first group of keys that a field's type names, None where it names none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := nested_model(arg))), None)

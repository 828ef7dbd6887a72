"""Reading an experiment's YAML: strict text, overrides, and errors that name the key."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from physfed_ray.errors import PhysFedError


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-3 as a number and refuses a key that is written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing duplicate keys (PyYAML silently keeps the last)."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise PhysFedError(f"line {line}: the key '{key}' is written twice; keep one")
        return dict(super().construct_mapping(node, deep=deep))


# YAML 1.1, which PyYAML speaks, takes 1e-3 (no dot) for a string.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)

MOST_FINDINGS = 4
WORDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text (put it in quotes)",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', beginning with one of the first "
    "two",
    "tuple_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
    "too_short": "a list of at least {min_length}",
    "path_type": "a path",
}


def parse_yaml(text: str, where: str) -> Any:
    """Return what YAML text says.

    Args:
        text: YAML.
        where: What the text is, for error messages.

    Raises:
        PhysFedError: The text is not YAML, or writes a key twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except PhysFedError as error:
        raise PhysFedError(f"{where}, {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise PhysFedError(f"{where}{line}: this is not valid YAML: {problem}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        PhysFedError: The file is missing, unreadable, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PhysFedError(f"there is no experiment file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PhysFedError(f"the experiment file {path} cannot be read: {error}") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise PhysFedError(f"{path} must hold keys such as 'name:', 'data:' and 'clients:'")
    return content


def apply_overrides(content: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set ``key.path=value`` entries in place, values read as YAML, list items by number.

    Raises:
        PhysFedError: An override has no ``=``, or its path does not fit the file.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise PhysFedError(f"--set {override}: write key=value, for example training.lr=1e-3")
        set_key(content, key.strip().split("."), parse_yaml(value, f"--set {key}"), f"--set {key}")


def set_key(content: dict[str, Any], path: Sequence[str], value: Any, where: str) -> None:
    """Set one key in place, making the groups on its way.

    Args:
        content: Nested groups of keys.
        path: The parts of a dotted key; a number names an item of a list.
        value: What to set.
        where: Begins error messages.

    Raises:
        PhysFedError: The path does not fit the content.
    """
    node: Any = content
    for depth, part in enumerate(path):
        here = ".".join(path[:depth])
        index: Any = part
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise PhysFedError(f"{where}: '{here}' is a list of {len(node)}; use 0 to "
                                   f"{len(node) - 1}")  # fmt: skip
            index = int(part)
        elif not isinstance(node, dict):
            raise PhysFedError(f"{where}: '{here}' is {node!r}, which has no key '{part}'")
        if depth == len(path) - 1:
            node[index] = value
        elif isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        node = node[index]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence part that names the closest known name and all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean '{close[0]}'? " if close else "") + "allowed: " + ", ".join(names)


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Return pydantic's findings as one sentence with the path of each key.

    Args:
        error: What pydantic found.
        model: The model that was validated.
        prefix: Path of that model in the file, for example ``"method."``.
    """
    entries: list[dict[str, Any]] = [dict(entry) for entry in error.errors()]
    places = [entry["loc"] for entry in entries]
    findings = [
        _finding(entry, model, prefix)
        for entry in entries
        if not any(_contains(entry["loc"], place) for place in places)
    ]
    more = f"; and {len(findings) - MOST_FINDINGS} more" if len(findings) > MOST_FINDINGS else ""
    return "; ".join(findings[:MOST_FINDINGS]) + more


def _contains(outer: Sequence[int | str], inner: Sequence[int | str]) -> bool:
    """Say whether ``inner`` lies below ``outer``, whose finding then only repeats it."""
    return len(inner) > len(outer) > 0 and tuple(inner[: len(outer)]) == tuple(outer)


def _finding(entry: Mapping[str, Any], model: type[BaseModel], prefix: str) -> str:
    path = (prefix + ".".join(str(part) for part in entry["loc"])).rstrip(".")
    kind, context = entry["type"], entry.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(model, entry["loc"][:-1])
        return f"{path}: unknown key; {did_you_mean(str(entry['loc'][-1]), known)}"
    if kind == "missing":
        what = "key" if isinstance(entry["loc"][-1], str) else "entry of the list"
        return f"{path}: this {what} is required"
    if kind == "value_error":
        return f"{path}: {context['error']}" if path else str(context["error"])
    expected = WORDS.get(kind) or entry["msg"].removeprefix("Input should be ")
    return f"{path}: must be {expected.format(**context)}, not {_shown(entry['input'])}"


def _shown(value: Any) -> str:
    """Return a value as YAML writes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]


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

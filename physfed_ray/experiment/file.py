"""Reading an experiment's YAML: strict text, limits on it, and overrides."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.explain import short, shown

MOST_BYTES = 64 * 2**20
DEEPEST = 40
"""Groups and lists in each other; the schema needs seven."""
MOST_VALUES = 5_000_000
"""Values of a file with its aliases written out."""
LONGEST_NUMBER = 100
"""Characters of a number; what is longer stays text, which the schema then refuses by key."""
_OCTAL = re.compile(r"[-+]?0[0-9_]*[1-9][0-9_]*")
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-3 as a number, and refuses what would be taken for something else."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, refusing what is nested too deeply, contains itself or explodes."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if self._depth > DEEPEST:
            raise PhysFedError(
                f"line {line}: groups and lists lie in each other more than {DEEPEST} deep; write "
                "it flatter"
            )
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if node is None or id(node) in self._sizes:
            return node
        if isinstance(node, yaml.CollectionNode) and node.end_mark is None:
            raise PhysFedError(f"line {line}: the alias '*' stands inside what it stands for")
        size = 1 + sum(self._sizes.get(id(part), 1) for part in _parts(node))
        if size > MOST_VALUES:
            raise PhysFedError(
                f"line {line}: with its aliases written out, this holds more than {MOST_VALUES:,} "
                "values; write less"
            )
        self._sizes[id(node)] = size
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, refusing a key that is written twice (PyYAML keeps the last)."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = key.value if key.tag == _MERGE else self.construct_object(key, deep=True)
            if name in seen:
                line = key.start_mark.line + 1
                raise PhysFedError(f"line {line}: the key '{name}' is written twice; keep one")
            seen.add(name)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; what its tag or form cannot mean is refused with its line."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            line, kind = node.start_mark.line + 1, node.tag.rpartition(":")[2]
            raise PhysFedError(
                f"line {line}: {shown(node.value)} cannot be read as a {kind}; put text in quotes"
            ) from None

    def whole_number(self, node: yaml.ScalarNode) -> int | str:
        """Construct a whole number, but no octal one by accident, and none of endless digits."""
        if len(node.value) > LONGEST_NUMBER:
            return str(node.value)
        number: int = self.construct_yaml_int(node)
        how = "octal" if _OCTAL.fullmatch(node.value) else "base-60" * (":" in node.value)
        if how:
            raise PhysFedError(
                f"line {node.start_mark.line + 1}: YAML reads {node.value} as the {how} number "
                f'{number}: put it in quotes ("{node.value}") if it is an id, or write the number '
                "in plain digits, without zeros before it"
            )
        return number


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


# YAML 1.1, which PyYAML speaks, takes 1e-3 (no dot) for a string.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)


def parse_yaml(text: str, where: str) -> Any:
    """Return what YAML text says.

    Args:
        text: YAML.
        where: What the text is, for error messages.

    Raises:
        PhysFedError: The text is not YAML, writes a key twice, or is nested beyond reason.
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
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        hint = "" if path.suffix else "; `physfed experiments` lists what comes with the package"
        raise PhysFedError(f"there is no experiment file {path}{hint}") from None
    except UnicodeDecodeError as error:
        raise PhysFedError(
            f"the experiment file {path} is not text: byte {error.start} is not UTF-8"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise PhysFedError(f"the experiment file {path} cannot be read: {reason}") from None
    except ValueError as error:
        raise PhysFedError(f"the experiment file {shown(str(path))} has no name: {error}") from None
    if len(content) > MOST_BYTES:
        raise PhysFedError(f"{path} is larger than {MOST_BYTES // 2**20} MiB; an experiment file "
                           "holds a few keys")  # fmt: skip
    found = parse_yaml(text, str(path))
    if not isinstance(found, dict):
        raise PhysFedError(f"{path} must hold keys such as 'name:', 'data:' and 'clients:'")
    return found


def apply_overrides(content: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set ``key.path=value`` entries in place, values read as YAML, list items by number.

    Raises:
        PhysFedError: An override has no ``=``, or its path does not fit the file.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise PhysFedError(
                f"--set {short(override)}: write key=value, for example training.lr=1e-3"
            )
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
            index = int(part) if part.isdecimal() and len(part) < LONGEST_NUMBER else len(node)
            if index >= len(node):
                numbers = f"use 0 to {len(node) - 1}" if node else "it has no entry to set"
                raise PhysFedError(f"{where}: '{here}' is a list of {len(node)}; {numbers}")
        elif not isinstance(node, dict):
            raise PhysFedError(f"{where}: '{here}' is {shown(node)}, which has no key '{part}'")
        if depth == len(path) - 1:
            node[index] = value
        elif isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        node = node[index]

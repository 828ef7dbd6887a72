"""The rules that keep the learning debuggable: imports point downwards, and Ray is in one room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import physfed_ray

PACKAGE = Path(physfed_ray.__file__).parent

FOUNDATIONS = {
    "atomic", "cache", "checksum", "code_version", "device", "errors", "events", "registry",
    "seeds", "shipped", "window", "words",
}  # fmt: skip
"""Modules beside the rooms that import nothing but each other."""

ROOMS = (
    "ct",
    "fields",
    "front_ends",
    "reports",
    "assets",
    "models",
    "objectives",
    "methods",
    "metrics",
    "federation.channel",
    "experiment",
    "rundir",
    "data",
    "federation",
    "pretraining",
    "serving",
    "cost",
    "results",
    "pages",
    "surrogates",
    "trackers",
    "runtime",
    "suites",
    "sweep",
    "screen",
    "cli",
)
"""From the ground up: a room imports from itself, those before it, and the foundations.

A name with a dot is a room inside another: the schema knows its settings, and it knows no schema.
A room is a folder, or one module where it needs no more (``fields``).
"""

WITH_RAY = ("runtime", "sweep")
"""Rooms that import Ray, the second only the parts of it that find out what a cluster has."""


def imported(file: Path) -> Iterator[str]:
    """Yield every module that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


INNER = tuple(room for room in ROOMS if "." in room)


def room_of(path: str) -> str:
    """Return the room of a dotted path below ``physfed_ray``."""
    return next((r for r in INNER if f"{path}.".startswith(f"{r}.")), path.split(".")[0])


def files_of(room: str) -> list[Path]:
    """Return a room's files, without those of the rooms inside it."""
    folder = PACKAGE / room.replace(".", "/")
    files = [*PACKAGE.glob(f"{room}.py"), *folder.rglob("*.py")]
    return [
        f for f in files if room_of(".".join(f.relative_to(PACKAGE).with_suffix("").parts)) == room
    ]


def inside(file: Path) -> set[str]:
    """Return the rooms and foundations that a file imports from."""
    own = {m.removeprefix("physfed_ray.") for m in imported(file) if m.startswith("physfed_ray.")}
    return {room_of(path) for path in own} & {*FOUNDATIONS, *ROOMS, "pages"}


def test_every_module_is_in_a_room_or_a_foundation() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert folders | files == {*ROOMS, *FOUNDATIONS} - {*INNER}
    assert not folders & FOUNDATIONS


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downwards(room: str) -> None:
    allowed = {*FOUNDATIONS, *ROOMS[: ROOMS.index(room) + 1]}
    files = files_of(room)
    assert files
    guilty = {f"{file.relative_to(PACKAGE)} -> {up}" for file in files
              for up in inside(file) - allowed}  # fmt: skip
    assert not guilty


def test_foundations_import_no_room() -> None:
    for name in FOUNDATIONS:
        assert inside(PACKAGE / f"{name}.py") <= FOUNDATIONS


def test_ray_is_imported_in_its_rooms_alone() -> None:
    files = [f for f in PACKAGE.rglob("*.py") if f.relative_to(PACKAGE).parts[0] not in WITH_RAY]
    assert len(files) > 100
    guilty = [f for f in files if any(m.split(".")[0] == "ray" for m in imported(f))]
    assert not guilty


def test_a_channel_knows_the_foundations_alone() -> None:
    for file in files_of("federation.channel"):
        assert inside(file) <= {*FOUNDATIONS, "federation.channel"}

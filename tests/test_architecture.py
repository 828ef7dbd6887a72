"""The rules that keep the learning debuggable: imports point downwards, and Ray is in one room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import physfed_ray

PACKAGE = Path(physfed_ray.__file__).parent

FOUNDATIONS = {
    "atomic", "batch", "code_version", "device", "errors", "events", "registry", "seeds", "words",
}  # fmt: skip
"""Modules beside the rooms that import nothing but each other."""

ROOMS = (
    "ct",
    "reports",
    "models",
    "objectives",
    "methods",
    "experiment",
    "metrics",
    "rundir",
    "data",
    "federation",
    "cost",
    "results",
    "pages",
    "trackers",
    "runtime",
    "suites",
    "sweep",
    "screen",
    "cli",
)
"""From the ground up: a room imports from itself, those before it, and the foundations."""

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


def inside(file: Path) -> set[str]:
    """Return the first names below ``physfed_ray`` that a file imports from."""
    own = {m.split(".")[1] for m in imported(file) if m.startswith("physfed_ray.")}
    return own & {*FOUNDATIONS, *ROOMS, "pages"}


def test_every_module_is_in_a_room_or_a_foundation() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert folders == set(ROOMS)
    assert files == FOUNDATIONS


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downwards(room: str) -> None:
    allowed = {*FOUNDATIONS, *ROOMS[: ROOMS.index(room) + 1]}
    files = list((PACKAGE / room).rglob("*.py"))
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

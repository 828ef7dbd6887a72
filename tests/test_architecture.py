"""The rule that keeps the learning debuggable: no Ray outside runtime/."""

import ast
from collections.abc import Iterator
from pathlib import Path

import physfed_ray

PACKAGE = Path(physfed_ray.__file__).parent
WITHOUT_RAY = ("ct", "data", "reports", "models", "methods", "federation", "evaluation")


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_ray_is_imported_in_runtime_alone() -> None:
    files = [file for name in WITHOUT_RAY for file in (PACKAGE / name).rglob("*.py")]
    assert len(files) > 30
    guilty = [f for f in files if any(m.split(".")[0] == "ray" for m in imported(f))]
    assert not guilty


def test_physics_knows_nothing_of_learning() -> None:
    above = ("models", "methods", "federation", "runtime", "evaluation", "data", "reports")
    for file in (PACKAGE / "ct").rglob("*.py"):
        for module in imported(file):
            assert not module.startswith(tuple(f"physfed_ray.{name}" for name in above)), file

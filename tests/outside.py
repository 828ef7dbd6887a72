"""A package of somebody else's that adds a name to the project through an entry point."""

import sys
from pathlib import Path
from typing import Any

import pytest

from physfed_ray.registry import Registry


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry[Any], name: str, source: str
) -> None:
    """Make an installed package of a module, for the length of a test.

    Args:
        folder: Where it is to lie.
        monkeypatch: The test's.
        registry: What the name is added to.
        name: The name; it stands for the module's ``Ours``.
        source: The module.
    """
    module = f"their_{registry.noun}"
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.group}]\n{name} = {module}:Ours\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
    assert len(registry) > 0  # what it has found so far comes back after the test
    monkeypatch.delitem(vars(registry), "_entries")

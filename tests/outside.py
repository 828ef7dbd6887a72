"""A package of somebody else's that adds names to the project through entry points."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from physfed_ray.registry import Registry

Names = Mapping[str, str]
"""Name in experiments -> what it stands for in the package's module."""


def write_package(folder: Path, source: str, groups: Mapping[str, Names]) -> None:
    """Write an installed package of one module, ``theirs``.

    Args:
        folder: Where it is to lie.
        source: The module.
        groups: Its entry points by group.
    """
    info = folder / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "theirs.py").write_text(source)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    lines = [
        line
        for group, names in groups.items()
        for line in (f"[{group}]", *(f"{name} = theirs:{what}" for name, what in names.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))


def install(
    folder: Path, patch: pytest.MonkeyPatch, source: str, *added: tuple[Registry[Any], Names]
) -> None:
    """Install such a package in this process, for as long as the patch lasts.

    Args:
        folder: Where it is to lie.
        patch: The test's, or the fixture's.
        source: The module.
        added: Registries, and the names that each of them gets.
    """
    write_package(folder, source, {registry.group: names for registry, names in added})
    patch.syspath_prepend(str(folder))
    patch.delitem(sys.modules, "theirs", raising=False)
    for registry, _ in added:
        assert len(registry) > 0  # what it has found so far comes back after the test
        patch.delitem(vars(registry), "_entries")

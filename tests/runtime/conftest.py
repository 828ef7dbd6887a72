"""One cluster of two nodes for all that needs another one's files, CPUs or death."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import test_files, test_placement, test_prepare
from tests.runtime.two_nodes import in_new_process, require_private_mounts, two_nodes


@pytest.fixture(scope="session")
def two_nodes_seen(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What a driver saw that shipped files, prepared data and placed hosts on other nodes."""
    require_private_mounts()
    folder = tmp_path_factory.mktemp("two_nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHYSFED_SALT", test_prepare.SALT)
        return dict(in_new_process(use_two_nodes, folder))


def use_two_nodes(folder: Path) -> dict[str, Any]:
    """Let the driver's node be one without CPUs; others follow those that are killed."""
    shipped, prepared = folder / "files", folder / "prepare"
    shipped.mkdir()
    prepared.mkdir()
    (hidden, then), (more, also) = test_files.hide(shipped), test_prepare.hide(prepared)
    cache = prepared / "of its own"
    environment = {"PHYSFED_CACHE": str(cache)}
    with two_nodes(0, 2, [*hidden, *more], f"{then} && {also}", environment) as second:
        seen: dict[str, Any] = {"folder": folder}
        seen["files"] = test_files.use_two_nodes(shipped, cache, second)
        seen["prepare"] = test_prepare.prepare_on_two_nodes(prepared, second)
        added = [second.added[0], second.add(cpus=2)]
        specs = test_placement.specs(folder)
        seen["placement"] = test_placement.drive(*specs, added, second)
    return seen

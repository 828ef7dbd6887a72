"""What the tests of faults share: a prepared cache, an undisturbed run, a cluster's head."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.nodes import Nodes, nodes
from tests.faults.runs import ENTRY_POINT, Run, State, state_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let all processes share a cache and find the method that fails on demand."""
    plugin = tmp_path_factory.mktemp("plugin")
    info = plugin / "faulty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHYSFED_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(plugin), str(ROOT)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def undisturbed(environment: None, tmp_path_factory: pytest.TempPathFactory) -> State:
    """Return the end of a run, in one process, to which nothing happened."""
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run", "--runtime", "inline")
    run.succeeds()
    return state_of(run.out)


@pytest.fixture(scope="session")
def head(environment: None) -> Iterator[Nodes]:
    """A cluster's head, for all tests that do not kill it."""
    with nodes() as cluster:
        yield cluster


@pytest.fixture
def cluster(head: Nodes) -> Iterator[Nodes]:
    """The head, with no other nodes yet."""
    yield head
    head.kill_all_but_the_head()

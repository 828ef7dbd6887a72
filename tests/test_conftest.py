"""The suite's own arrangement."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="the tests run in one process")
def test_a_group_stays_in_one_process(request: pytest.FixtureRequest) -> None:
    """pytest-xdist deals tests by what it has put behind their names, if it could."""
    assert request.node.nodeid.endswith("@test_conftest.py")

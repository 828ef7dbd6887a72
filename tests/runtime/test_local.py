"""A Ray of this machine's own: which of its processes start, and that it works without the rest."""

import subprocess
import sys

import pytest
from ray._private import node, parameter

from physfed_ray.errors import PhysFedError
from physfed_ray.runtime.cluster import connect
from physfed_ray.runtime.local import few_processes

STARTED = """
import sys, urllib.request
import psutil, ray
from physfed_ray.runtime.cluster import connect

said = connect(None, dashboard=sys.argv[1] == "dashboard")
print(ray.get(ray.remote(lambda: "works").remote()))
words = [word for p in psutil.Process().children(recursive=True) for word in p.cmdline()]
print(sorted({w.rsplit("/")[-1] for w in words if w.endswith(("dashboard.py", "onitor.py"))}))
print(said)
if said:
    print(urllib.request.urlopen(said.split()[-1]).status)
ray.shutdown()
"""


def test_ray_is_left_as_it_was() -> None:
    before = parameter.RayParams, node.Node.start_api_server
    with few_processes():
        assert parameter.RayParams().no_monitor is True
        assert parameter.RayParams().include_log_monitor is False
        assert node.Node.start_api_server != before[1]
    assert (parameter.RayParams, node.Node.start_api_server) == before
    with few_processes(dashboard=True):
        assert node.Node.start_api_server == before[1]


def test_a_cluster_that_runs_already_gets_no_dashboard_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests here may have joined one
    with pytest.raises(PhysFedError, match=r"joins the Ray cluster at 10\.0\.0\.1:6379"):
        connect("10.0.0.1:6379", dashboard=True)


@pytest.mark.cluster
@pytest.mark.parametrize("dashboard", [False, True])
def test_only_what_a_run_needs_is_started(dashboard: bool) -> None:
    """Which processes Ray starts, and whether it works without them, only Ray can show."""
    command = [sys.executable, "-c", STARTED, "dashboard" if dashboard else "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    works, processes, said, *status = done.stdout.splitlines()
    assert works == "works"
    assert processes == ("['dashboard.py']" if dashboard else "[]")
    if dashboard:
        assert "dashboard is at http://127.0.0.1:" in said
        assert status == ["200"]
    else:
        assert said == "None"

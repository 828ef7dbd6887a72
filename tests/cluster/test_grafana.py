"""The Grafana dashboard: importable, one run at a time, and of metrics that Ray has.

That it shows exactly what a run exports is in ``tests/runtime/test_metrics.py``, where Ray runs.
"""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "physfed.json"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    content: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return content


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_every_panel_asks_the_chosen_prometheus(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    askers = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    askers += [target for panel in askers for target in panel["targets"]] + [variables["run"]]
    assert len(askers) > 40
    assert {asker["datasource"]["uid"] for asker in askers} == {"${datasource}"}


def test_every_metric_of_a_run_is_of_the_chosen_run(dashboard: dict[str, Any]) -> None:
    for expression in expressions(dashboard):
        named = re.findall(r"ray_physfed_\w+", expression)
        assert len(re.findall(r'ray_physfed_\w+\{run=~"\$run"\}', expression)) == len(named)
        assert all(expression.count(a) == expression.count(b) for a, b in ("()", "{}", "[]"))


def test_the_metrics_of_the_machines_are_those_of_rays_own_dashboard(
    dashboard: dict[str, Any],
) -> None:
    known = set(re.findall(r"ray_\w+", Path(default_dashboard_panels.__file__).read_text()))
    asked = {name for e in expressions(dashboard) for name in re.findall(r"\bray_\w+", e)}
    machines = {name for name in asked if not name.startswith("ray_physfed_")}
    assert {"ray_node_gpus_utilization", "ray_node_mem_used_host"} <= machines <= known


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for a, b in combinations(places, 2):
        apart = (a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
                 or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"])  # fmt: skip
        assert apart, (a, b)
    assert max(place["x"] + place["w"] for place in places) <= 24

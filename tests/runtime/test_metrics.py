"""Metrics as Prometheus reads them from Ray's agent, for a real run and a real host process."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from physfed_ray.runtime.metrics import NAMED_CLIENTS

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "cluster" / "grafana" / "physfed.json"
HOST_ROUNDS = 6
EXPERIMENT = """
name: watched
reports: {encoder: hashed}
data:
  source: {phantom: {patients: 2, slices: 2}}
  image_size: 32
  test_patients: 1
clients: [{id: c1, protocol: paper-2}]
backbone: {channels: 2}
method: {name: fedavg}
training: {rounds: 2, batch_size: 2, patch: 32, evaluate_every: 1}
"""
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was watched, with the text that Prometheus read."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "watched.yaml").write_text(EXPERIMENT)
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("watched.py"), folder],
        env=os.environ | {"RAY_metrics_report_interval_ms": "1000", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (folder / "metrics.txt").write_text(ended.stdout)
    return folder


@pytest.fixture(scope="module")
def series(folder: Path) -> Series:
    """Return every series of this project, with its labels but those that Ray adds."""
    ours = {"run", "host", "client", "statistic", "split", "le"}
    found: Series = {}
    for family in text_string_to_metric_families((folder / "metrics.txt").read_text()):
        for sample in family.samples:
            if sample.name.startswith("ray_physfed_"):
                labels = frozenset(pair for pair in sample.labels.items() if pair[0] in ours)
                found[sample.name, labels] = sample.value
    return found


@pytest.fixture(scope="module")
def value(series: Series) -> Callable[..., float]:
    """Return a lookup: ``value(metric, label=...)`` of the run ``watched``."""

    def look_up(name: str, run: str = "watched", **labels: str) -> float:
        return series[f"ray_physfed_{name}", frozenset({"run": run, **labels}.items())]

    return look_up


def test_a_run_exports_the_numbers_that_it_wrote(folder: Path, value: Callable[..., float]) -> None:
    rows = {
        (row["round"], row["client"], row["split"], row["metric"]): row["value"]
        for row in pq.read_table(folder / "run" / "metrics.parquet").to_pylist()
    }
    assert value("round") == value("rounds_planned") == 2
    assert value("clients") == value("hosts") == value("participants") == 1
    assert value("missing") == value("eta_seconds") == 0
    assert value("loss", client="c1") == rows[2, "c1", "train", "loss"]
    assert value("loss_summary", statistic="max") == rows[2, "c1", "train", "loss"]
    assert value("psnr", client="c1", split="test") == rows[2, "c1", "test", "psnr"]
    assert value("ssim", client="c1", split="test") == rows[2, "c1", "test", "ssim"]
    assert value("bytes_up") == rows[2, "server", "system", "bytes_up"]
    assert value("bytes_down") == rows[2, "server", "system", "bytes_down"]
    assert value("round_seconds") > 0
    assert value("slices_per_second") > 0


def test_what_is_set_once_is_shown_as_long_as_the_run_lasts(
    series: Series, value: Callable[..., float]
) -> None:
    assert value("scans_done") == value("scans_planned") > 0
    assert value("training", host="host-0", client="slow") == 1
    assert not [labels for _, labels in series if ("run", "done") in labels]


def test_many_clients_are_summed_up(series: Series, value: Callable[..., float]) -> None:
    def psnr(statistic: str) -> float:
        return value("psnr_summary", run="many", statistic=statistic, split="test")

    assert psnr("min") == 20
    assert psnr("max") == 20 + NAMED_CLIENTS
    assert psnr("mean") == 20 + NAMED_CLIENTS / 2
    of_many = [dict(labels) for _, labels in series if ("run", "many") in labels]
    assert not [labels for labels in of_many if "client" in labels]
    assert value("ssim_summary", run="many", statistic="max", split="test") == 0.5


def test_a_host_exports_its_queue_and_its_clients(
    series: Series, value: Callable[..., float]
) -> None:
    assert value("clients_waiting", host="host-0") == 5
    assert value("clients_done_total", host="host-0") == HOST_ROUNDS
    assert value("client_seconds_count", host="host-0") == HOST_ROUNDS
    assert value("client_seconds_bucket", host="host-0", le="0.3") == 0
    assert value("client_seconds_bucket", host="host-0", le="1.0") == HOST_ROUNDS
    training = [labels for name, labels in series if name == "ray_physfed_training"]
    assert len(training) == 1, "a client whose turn is over is no longer shown"


def test_the_dashboard_shows_all_that_is_exported_and_nothing_else(series: Series) -> None:
    asked = set(re.findall(r"ray_physfed_\w+", DASHBOARD.read_text()))
    exported = {name for name, _ in series}
    assert asked <= exported, "the dashboard asks for what nobody exports"
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} == {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in exported
    }

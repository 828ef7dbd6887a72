"""Trackers with the real tools: local TensorBoard files, an MLflow database, W&B offline."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from physfed_ray.errors import PhysFedError
from physfed_ray.trackers import MetricRow, Status, Tracker, make_tracker, public_settings
from physfed_ray.trackers.background import Background
from physfed_ray.trackers.base import NAMED_CLIENTS, Curves

EXPERIMENT = """
name: tracked
seed: 7
data: {source: {dicom: /clinic/SMITH_JOHN}, cache: /clinic/cache, test_patients: [P0001, P0002]}
clients: [{id: c1, protocol: paper-1, patients: [P0003]}, {id: c2, protocol: paper-2}]
method: {name: fedavg, tau: 0.5}
"""
SECRETS = ("SMITH", "/clinic", "P0001", "P0003")


def rows(number: int) -> list[MetricRow]:
    """Return the rows of a round with two clients and the server."""
    return [
        (number, "c1", "train", "loss", 1.0 / number),
        (number, "c2", "train", "loss", 3.0 / number),
        (number, "c1", "test", "psnr[-160,240]", 30.0),
        (number, "server", "system", "bytes_up", 8.0),
    ]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of an MLflow database of the test's own."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)  # MLflow puts a database's files beside the process
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ct")
    return MlflowClient(uri)


@pytest.fixture
def wandb_offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep W&B on this machine, and end its service afterwards."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    wandb.teardown()
    yield
    wandb.teardown()


def test_curves_are_the_mean_and_each_client() -> None:
    assert Curves().points([*rows(2), (2, "c2", "test", "psnr[-160,240]", math.nan)]) == {
        2: {
            "train/loss/_mean": 1.0,
            "train/loss/c1": 0.5,
            "train/loss/c2": 1.5,
            "test/psnr[-160,240]/_mean": 30.0,
            "test/psnr[-160,240]/c1": 30.0,
            "system/bytes_up/server": 8.0,
        }
    }


def test_only_the_first_clients_get_curves_and_all_are_in_the_mean() -> None:
    curves = Curves()
    many = [(1, f"c{i}", "train", "loss", float(i)) for i in range(NAMED_CLIENTS + 5)]
    first = curves.points(many)[1]
    assert len(first) == NAMED_CLIENTS + 1
    assert first["train/loss/_mean"] == (NAMED_CLIENTS + 4) / 2
    later = curves.points([(2, name, "train", "loss", 1.0) for name in ("c0", "new")])[2]
    assert set(later) == {"train/loss/_mean", "train/loss/c0"}


def test_settings_lose_patients_and_folders_and_nothing_else() -> None:
    settings = public_settings(EXPERIMENT)
    assert not any(secret in json.dumps(settings) for secret in SECRETS)
    assert settings["data"]["test_patients"] == 2
    assert [client["protocol"] for client in settings["clients"]] == ["paper-1", "paper-2"]
    assert settings["method"] == {"name": "fedavg", "tau": 0.5}


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    with make_tracker(["tensorboard"], EXPERIMENT, "run", str(tmp_path), False) as tracker:
        tracker.add(rows(1))
        tracker.add(rows(2))
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss/c2")] == [(1, 3.0), (2, 1.5)]
    assert [e.value for e in board.Scalars("train/loss/_mean")] == [2.0, 1.0]


def test_mlflow_gets_one_run_that_a_resumed_run_goes_on_with(tmp_path: Path, database: Any) -> None:
    warnings: list[str] = []
    given = (["mlflow"], EXPERIMENT, "first", str(tmp_path / "run"))
    tracker = make_tracker(*given, False, warnings.append)
    with suppress(KeyboardInterrupt), tracker:
        tracker.add(rows(1))
        raise KeyboardInterrupt
    experiment = database.get_experiment_by_name("ct")
    (stopped,) = database.search_runs([experiment.experiment_id])
    assert stopped.info.status == "KILLED"
    with make_tracker(*given, True, warnings.append) as tracker:
        tracker.add(rows(2))
    (run,) = database.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name) == (stopped.info.run_id, "first")
    assert run.info.status == "FINISHED"
    assert run.data.params["method.tau"] == "0.5"
    history = database.get_metric_history(run.info.run_id, "train/loss/c2")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 1.5)]
    assert run.data.metrics["test/psnr:-160:240/c1"] == 30.0
    file = Path(database.download_artifacts(run.info.run_id, "experiment.yaml"))
    assert yaml.safe_load(file.read_text()) == public_settings(EXPERIMENT)
    assert warnings == []
    with make_tracker(*given[:3], str(tmp_path / "other"), False):
        pass
    assert len(database.search_runs([experiment.experiment_id])) == 2


def test_wandb_keeps_numbers_and_settings_and_sends_nothing_else(
    tmp_path: Path, wandb_offline: None
) -> None:
    warnings: list[str] = []
    for resume in (False, True):
        with make_tracker(
            ["wandb"], EXPERIMENT, "name-of-run", str(tmp_path), resume, warnings.append
        ) as tracker:
            tracker.add(rows(1 + resume))
            print("the console names SMITH_JOHN")
    assert warnings == []
    run = json.loads((tmp_path / "trackers" / "wandb.json").read_text())["run"]
    logs = sorted(tmp_path.glob(f"wandb/offline-run-*-{run}/run-{run}.wandb"))
    assert logs
    content = b"".join(log.read_bytes() for log in logs)
    for expected in ("train/loss/_mean", "test/psnr[-160,240]/c1", "name-of-run", "fedavg"):
        assert expected.encode() in content
    for secret in (*SECRETS, "test_trackers.py"):
        assert secret.encode() not in content
    machine = os.uname().nodename.encode()
    assert bytes([len(machine)]) + machine not in content  # a field of its own, length first


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PhysFedError, match=rf"pip install physfed_ray\[{name}\]"):
        make_tracker([name], EXPERIMENT, "run", str(tmp_path), False)


def test_wandb_without_a_key_is_refused_at_the_start(tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    script = "from physfed_ray.trackers import make_tracker; " \
             "make_tracker(['wandb'], 'name: a', 'run', '.', False)"  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=clean | {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "PhysFedError: tracking: Weights & Biases has no key" in ended.stderr


def test_a_dead_server_is_warned_of_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    with make_tracker(
        ["mlflow", "tensorboard"], EXPERIMENT, "run", str(tmp_path), False, warnings.append
    ) as tracker:
        for number in range(1, 4):
            tracker.add(rows(number))
    (warning,) = warnings
    assert warning.startswith("MLflow did not take the curves (")
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss/c1")] == [1, 2, 3]


class Moody(Tracker):
    """Cannot be reached at first, and refuses its first rows."""

    starts = 0
    taken: list[MetricRow]

    def __init__(self) -> None:
        Moody.starts += 1
        if Moody.starts == 1:
            raise ConnectionError("nobody there")
        self.refused = False
        Moody.taken = []

    def add(self, rows: Sequence[MetricRow]) -> None:
        """Take rows, but not the first."""
        if rows and not self.refused:
            self.refused = True
            raise TimeoutError
        Moody.taken += rows

    def finish(self, status: Status) -> None:
        """Note the end."""
        Moody.taken.append((0, status, "", "", 0.0))


def test_what_failed_is_sent_when_the_server_answers_again() -> None:
    warnings: list[str] = []
    with Background("Moody", Moody, warnings.append) as tracker:
        for number in (1, 2, 3):
            tracker.add(rows(number))
    assert Moody.taken == [*rows(1), *rows(2), *rows(3), (0, "finished", "", "", 0.0)]
    assert len(warnings) == 1

"""MLflow: a tracking server or a database, as ``MLFLOW_TRACKING_URI`` says."""

import os
import re
import time
from collections.abc import Sequence
from typing import Any

import yaml

from physfed_ray.rundir.long_table import MetricRow
from physfed_ray.trackers.base import PROJECT, Curves, RunId, Status, Tracker

METRICS = 1000  # that MLflow's server takes in one request
PARAMETERS = 100  # likewise


class MLflow(Tracker):
    """A run in the MLflow experiment ``MLFLOW_EXPERIMENT_NAME``, by default ``physfed_ray``.

    Args:
        settings: The experiment's settings.
        run_name: Name of a new run.
        run_id: Which run to go on with.
    """

    def __init__(self, settings: dict[str, Any], run_name: str, run_id: RunId) -> None:
        from mlflow import MlflowClient

        self._client, self._curves, self._settings = MlflowClient(), Curves(), settings
        self._run = run_id.get() or ""
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        where = found.experiment_id if found else self._client.create_experiment(name)
        self._run = self._client.create_run(where, run_name=run_name).info.run_id
        run_id.keep(self._run)
        self._log_parameters()

    def _log_parameters(self) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, str(value)) for name, value in _flat("", self._settings)]
        for start in range(0, len(parameters), PARAMETERS):
            batch = parameters[start : start + PARAMETERS]
            self._client.log_batch(self._run, params=batch)

    def add(self, rows: Sequence[MetricRow]) -> None:
        """See ``Tracker.add``."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(_mlflow_name(name), value, now, number)
            for number, values in self._curves.points(rows).items()
            for name, value in values.items()
        ]
        for start in range(0, len(metrics), METRICS):
            self._client.log_batch(self._run, metrics=metrics[start : start + METRICS])

    def finish(self, status: Status) -> None:
        """See ``Tracker.finish``; the settings go last, as the store of files may be another."""
        self._client.set_terminated(self._run, status.upper())
        text = yaml.safe_dump(self._settings, sort_keys=False, allow_unicode=True)
        self._client.log_text(self._run, text, "experiment.yaml")


def _flat(prefix: str, settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the single values of nested settings as ``method.tau``; lists are left out."""
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            flat += _flat(f"{prefix}{key}.", value)
        elif not isinstance(value, list):
            flat.append((f"{prefix}{key}", value))
    return flat


def _mlflow_name(name: str) -> str:
    """Write ``psnr[-160,240]`` with the characters that MLflow allows: ``psnr:-160:240``."""
    return re.sub(r"[^\w\-.:/ ]", "_", re.sub(r"[\[,]", ":", name).replace("]", ""))

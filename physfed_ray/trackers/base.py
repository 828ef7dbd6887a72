"""What every tracker has in common: its interface, its curves, and what may leave the machine."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import yaml

from physfed_ray.rundir.long_table import MetricRow
from physfed_ray.rundir.run_directory import RunDirectory

Status = Literal["finished", "failed", "killed"]
Warn = Callable[[str], None]

PROJECT = "physfed_ray"
NAMED_CLIENTS = 32
NOT_SENT = "(not sent)"


class Tracker(ABC):
    """Takes the rows of ``metrics.parquet`` as they come; a context manager that finishes."""

    @abstractmethod
    def add(self, rows: Sequence[MetricRow]) -> None:
        """Show the rows of a round."""

    @abstractmethod
    def finish(self, status: Status) -> None:
        """Send what is left and say how the run ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Finish as the block ended."""
        if kind is None:
            self.finish("finished")
        else:
            self.finish("failed" if issubclass(kind, Exception) else "killed")


class Curves:
    """Turns rows into curves: the mean over the clients, and the first clients' own.

    A curve is called ``split/metric/client``, the mean's client ``_mean``. Only the first
    ``NAMED_CLIENTS`` clients get curves, because hundreds are unreadable and slow in every tool.
    """

    def __init__(self) -> None:
        self._named: set[str] = set()

    def points(self, rows: Sequence[MetricRow]) -> dict[int, dict[str, float]]:
        """Return per round the value of each curve; what is not finite is left out."""
        points: dict[int, dict[str, float]] = {}
        groups: dict[tuple[int, str], list[float]] = {}
        for number, client, split, metric, value in rows:
            if not math.isfinite(value):
                continue
            if client != "server":
                groups.setdefault((number, f"{split}/{metric}/_mean"), []).append(value)
            if client == "server" or self._has_curve(client):
                points.setdefault(number, {})[f"{split}/{metric}/{client}"] = value
        for (number, name), values in groups.items():
            points.setdefault(number, {})[name] = math.fsum(values) / len(values)
        return points

    def _has_curve(self, client: str) -> bool:
        if len(self._named) < NAMED_CLIENTS:
            self._named.add(client)
        return client in self._named


class RunId:
    """The id under which a tool knows the run, kept in the run directory."""

    def __init__(self, directory: RunDirectory, tool: str, resume: bool) -> None:
        self._directory, self._file = directory, f"trackers/{tool}.json"
        self._read = resume
        self._id: str | None = None

    def get(self) -> str | None:
        """Return the id, None when there is none yet."""
        if self._read and self._directory.exists(self._file):
            self._id = yaml.safe_load(self._directory.read(self._file))["run"]
        self._read = False
        return self._id

    def keep(self, run: str) -> None:
        """Keep a new id."""
        self._id = run
        self._directory.write_json(self._file, {"run": run})


def public_settings(experiment_yaml: str) -> dict[str, Any]:
    """Return the experiment's settings without patient ids (their number) and data folders."""
    settings: dict[str, Any] = _public("", yaml.safe_load(experiment_yaml))
    return settings


def _public(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _public(name, entry) for name, entry in value.items()}
    if key.endswith("patients") and isinstance(value, list):
        return len(value)
    if isinstance(value, list):
        return [_public(key, entry) for entry in value]
    return NOT_SENT if key in ("dicom", "cache", "csv") and value else value

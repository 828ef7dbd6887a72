"""Read a run directory, also that of a run that was interrupted."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.examples import STACK
from physfed_ray.rundir.data_record import DataRecord, read_record
from physfed_ray.rundir.long_table import METRICS_FILE, SLICE_COLUMNS, SLICES_FILE, LongTable
from physfed_ray.rundir.place import no_run
from physfed_ray.rundir.recorded_files import CHECKSUMS_FILE
from physfed_ray.rundir.run_directory import RunDirectory

LOG = logging.getLogger(__name__)
_noted: list[str] = []

POLICIES: Mapping[str, tuple[str, str]] = {
    "shared": ("", "the one shared network"),
    "mean_of_scores": (
        "mean of local models",
        "the scores of all clients' models, averaged (the paper's baseline)",
    ),
    "nearest_protocol": ("nearest protocol", "the model of the client whose g is nearest"),
    "ensemble": ("ensemble", "the output images of all clients' models, averaged"),
    "pvqs": ("PVQS", "the codebook's nearest code, decoded on its client's host"),
    "oracle": (
        "oracle",
        "for each protocol the client's model with the highest PSNR there, chosen with the answer "
        "at hand",
    ),
}


KINDS = ("low", "denoised", "full")
"""What is kept of a slice, in the order in which a reader flicks through them."""
Curve = tuple[Sequence[int], Sequence[float]]
"""Rounds and values."""
Curves = Mapping[str, Curve]


@dataclass(frozen=True)
class ClientEntry:
    """A client or an unseen protocol, as the report names it.

    Attributes:
        id: Its name in logs and files.
        protocol: The seven numbers by name, and further fields where they are unusual.
        patients: Number of patients, None where the run does not say.
        slices: Number of slices, likewise.
        host: Index of its host, likewise.
        route: For an unseen protocol, the client PVQS chose and the cosine of the codes.
        nearest: For an unseen protocol, the client whose g is nearest.
    """

    id: str
    protocol: Mapping[str, Any]
    patients: int | None = None
    slices: int | None = None
    host: int | None = None
    route: tuple[str, float] | None = None
    nearest: str | None = None

    @property
    def preset(self) -> str | None:
        """Name of the preset with these numbers, None when there is none."""
        for name, preset in PRESETS.items():
            if all(getattr(preset, key) == value for key, value in self.protocol.items()):
                return name
        return None

    @property
    def label(self) -> str:
        """The id, with the preset's name where that says more."""
        preset = self.preset
        return self.id if preset in (None, self.id) else f"{self.id} ({preset})"


@dataclass(frozen=True)
class Example:
    """One slice before and after, (n, n) float32 in [0, 1] of the window.

    Attributes:
        low: Low dose.
        full: Full dose.
        denoised: Result by serving policy; the key is "" for a client's own model.
    """

    low: NDArray[np.float32]
    full: NDArray[np.float32]
    denoised: Mapping[str, NDArray[np.float32]]


OBJECT_IS_IMAGE = (
    "For comparison only: the object that was scanned is the image itself (data.object_scale: 1), "
    "as in the papers. Scores are flattered, most of all those of a method that projects images."
)
EARLIER_SCANNER = (
    "Made with the scanner of an earlier version: the object that was scanned is the image itself, "
    "which flatters methods that project images, and its reconstruction kernel is 0.85 pixel of "
    "the 256 x 256 grid, so at fewer pixels noise folds back. Do not compare it with newer runs."
)


@dataclass(frozen=True)
class RunResults:
    """What a run directory holds; parts that an interrupted run lacks are empty.

    Attributes:
        directory: Where it lies.
        experiment: The resolved experiment file.
        summary: ``summary.json``, {} when the run did not finish.
        metrics: Rows of round, client, split, metric, value.
        slices: Rows of client, split, patient, slice, metric, value.
        arrays: Example images by ``split/client/kind``, see ``federation/examples.py``.
        codebook: Client ids and their codes (K, code_dim), None without a codebook.
        missing: Round, client and reason, for every client that was missing.
        data: What identifies its data set, None for a run of an earlier version.
    """

    directory: RunDirectory
    experiment: Mapping[str, Any]
    summary: Mapping[str, Any]
    metrics: LongTable
    slices: LongTable
    arrays: Mapping[str, NDArray[Any]]
    codebook: tuple[list[str], NDArray[np.float32]] | None
    missing: tuple[tuple[int, str, str], ...]
    data: DataRecord | None = None

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.directory.root.rstrip("/").rsplit("/", 1)[-1]

    @property
    def title(self) -> str:
        """The method's name as its paper writes it."""
        return str(self.summary.get("title") or self.experiment["method"]["name"])

    @property
    def label(self) -> str | None:
        """What its user calls it in comparisons, None without a word."""
        return self.experiment.get("label")

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return int(self.experiment.get("seed", 1))

    @property
    def window_hu(self) -> tuple[float, float]:
        """HU that 0 and 1 stand for."""
        low, high = self.experiment["data"].get("window_hu", (-1000.0, 2000.0))
        return float(low), float(high)

    @property
    def scanner_notice(self) -> str:
        """What a reader must know of how the scans were simulated; empty by default."""
        data = self.experiment["data"]
        if "object_scale" not in data:
            return EARLIER_SCANNER
        return OBJECT_IS_IMAGE if data["object_scale"] == 1 else ""

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the experiment asked for beside the standard ones."""
        return tuple((self.experiment.get("evaluation") or {}).get("metrics") or ())

    @property
    def finished(self) -> bool:
        """Whether the final evaluation is there."""
        return bool(self.summary) and len(self.slices) > 0

    @property
    def rounds(self) -> int:
        """Last completed round."""
        return max(self.metrics.column("round"), default=0)

    @cached_property
    def clients(self) -> tuple[ClientEntry, ...]:
        """The training clients in the experiment's order."""
        return tuple(_entries(self.summary.get("clients") or self.experiment.get("clients", ())))

    @cached_property
    def unseen(self) -> tuple[ClientEntry, ...]:
        """The unseen protocols in the experiment's order."""
        return tuple(_entries(self.summary.get("unseen") or self.experiment.get("unseen", ())))

    @cached_property
    def policies(self) -> list[str]:
        """Serving policies with results on unseen protocols, in the order of the tables."""
        splits = {str(s) for s in self.slices.distinct("split")}
        return [p for p in POLICIES if f"unseen/{p}" in splits]

    @cached_property
    def scored(self) -> list[str]:
        """Names of what the last evaluation has scored on slices, one by one or all together."""
        splits = [str(split) for split in self.slices.distinct("split")]
        recorded = [
            self.metrics.where(split=split).distinct("metric")
            for split in splits
            if split.endswith("/input")
        ]
        names = [*self.slices.distinct("metric"), *(name for found in recorded for name in found)]
        return list(dict.fromkeys(map(str, names)))

    def client_means(self, split: str, metric: str) -> dict[str, float]:
        """Return each client's mean over slices, or what was last recorded of all its slices.

        Args:
            split: Such as "test", "test/input" or "unseen/pvqs".
            metric: Such as "psnr" or "ssim_body".
        """
        found = self.slices.where(split=split, metric=metric)
        if len(found):
            return found.means("client")
        recorded = self.metrics.where(split=split, metric=metric)
        if not len(recorded):
            return {}
        last = max(recorded.column("round"))
        return recorded.where(round=last).means("client")

    def curve(self, split: str, metric: str) -> dict[str, tuple[list[int], list[float]]]:
        """Return each client's rounds and values of a metric, in order."""
        rows = self.metrics.where(split=split, metric=metric)
        curves: dict[str, tuple[list[int], list[float]]] = {}
        for client in rows.distinct("client"):
            of_client = rows.where(client=client)
            rounds, values = of_client.column("round"), of_client.column("value")
            order = np.argsort(rounds, kind="stable")
            curves[client] = [rounds[k] for k in order], [values[k] for k in order]
        return curves

    def stacks(self, client: str) -> dict[str, NDArray[np.int16]]:
        """Return several test slices of a client, (K, n, n) HU by kind; none in earlier runs."""
        found = {kind: self.arrays.get(f"test/{client}/{kind}{STACK}") for kind in KINDS}
        return {kind: stack for kind, stack in found.items() if stack is not None}

    def example(self, split: str, client: str) -> Example | None:
        """Return the example images of a client ("test") or an unseen protocol ("unseen")."""
        images: dict[str, NDArray[np.float32]] = {}
        denoised: dict[str, NDArray[np.float32]] = {}
        for key, image in self.arrays.items():
            part, owner, kind = key.rsplit("/", 2)
            root, _, policy = part.partition("/")
            if root != split or owner != client:
                continue
            if kind.endswith(STACK):
                continue
            if kind == "denoised":
                denoised[policy] = image
            else:
                images.setdefault(kind, image)
        if not {"low", "full"} <= set(images):
            return None
        return Example(images["low"], images["full"], denoised)


def read_results(root: str | Path) -> RunResults:
    """Read a run directory.

    Args:
        root: Local path or fsspec URL.

    Raises:
        PhysFedError: There is no run, or no round of it was completed.
    """
    directory = RunDirectory(root)
    if not directory.has("experiment.yaml"):
        raise no_run(root)
    if directory.unchecked is not None:
        _note_unchecked(directory)
    metrics = directory.read_table(METRICS_FILE)
    if not len(metrics):
        raise PhysFedError(
            f"{root} holds no completed round yet; let the run go on, or resume it with --resume"
        )
    summary = directory.read_json("summary.json") if directory.has("summary.json") else {}
    return RunResults(
        directory,
        directory.read_yaml("experiment.yaml"),
        summary,
        metrics,
        directory.read_table(SLICES_FILE, SLICE_COLUMNS),
        directory.read_arrays("examples.npz"),
        _codebook(directory),
        tuple(_missing(directory)),
        read_record(directory),
    )


def _note_unchecked(directory: RunDirectory) -> None:
    """Say that files are taken as they are: of all runs of earlier versions once in a process."""
    text = str(directory.unchecked)
    about = directory.root if directory.exists(CHECKSUMS_FILE) else "runs of earlier versions"
    if about not in _noted:
        LOG.warning("%s", text)
        _noted.append(about)


def _codebook(directory: RunDirectory) -> tuple[list[str], NDArray[np.float32]] | None:
    arrays = directory.read_arrays("codebook.npz")
    if not arrays:
        return None
    return [str(client) for client in arrays["clients"]], arrays["codes"]


def _missing(directory: RunDirectory) -> Iterable[tuple[int, str, str]]:
    """Yield round, client and reason from the log's round events; other lines are skipped."""
    try:
        log = directory.read("run.log").decode(errors="replace")
    except (FileNotFoundError, IsADirectoryError):
        return
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("missing"), dict):
            for client, reason in entry["missing"].items():
                yield int(entry.get("round", 0)), str(client), str(reason)


def _entries(items: Iterable[Mapping[str, Any]]) -> Iterable[ClientEntry]:
    for item in items:
        route = item.get("route")
        yield ClientEntry(
            str(item["id"]),
            item["protocol"],
            item.get("patients") if isinstance(item.get("patients"), int) else None,
            item.get("slices"),
            item.get("host"),
            (str(route["client"]), float(route["cosine"])) if route else None,
            item.get("nearest"),
        )


def finite_mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are finite, NaN when there is none."""
    kept = [v for v in values if math.isfinite(v)]
    return sum(kept) / len(kept) if kept else math.nan


def mean_curve(curves: Curves) -> tuple[list[int], list[float]]:
    """Return the mean over clients for every round that any client has."""
    numbers, found = by_round(curves)
    return numbers, [finite_mean(values) for values in found]


def by_round(curves: Curves) -> tuple[list[int], list[list[float]]]:
    """Return every round that any client has, and the values of the clients that have it."""
    by_round: dict[int, list[float]] = {}
    for rounds, values in curves.values():
        for number, value in zip(rounds, values, strict=True):
            by_round.setdefault(number, []).append(value)
    return sorted(by_round), [by_round[number] for number in sorted(by_round)]

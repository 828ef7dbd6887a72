"""Denoisers that learn nothing, scored like a method on a run's data.

Each has one strength, chosen for every protocol on slices of its own (never on test patients); an
unseen protocol takes the strength of the seen protocol with the nearest g. The strength of the
tuned FBP is its kernel's width in pixels of the image: what it trades, noise against resolution,
lies on the image's grid, whereas a width in mm would be another one under another pixel length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physfed_ray.ct.protocol import nearest_protocol
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.prepared import Prepared, PreparedClient
from physfed_ray.data.store import ClientData, read_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.metrics.base import Context
from physfed_ray.metrics.pixelwise import Psnr
from physfed_ray.metrics.scoring import score_slices
from physfed_ray.results.denoisers import DENOISERS, Denoiser, Slices
from physfed_ray.rundir.long_table import SLICE_COLUMNS, SLICES_FILE, LongTable
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.window import Window

CLASSICAL_FILE = "classical.parquet"
TUNING_SLICES = 12
INPUT_TOLERANCE_DB = 0.1
"""Noise drawn anew, as on another device, moves the mean PSNR of a client by less."""
CLASSICAL_COLUMNS = ("method", *SLICE_COLUMNS)

ReadField = Callable[[str, str, str], Sequence[np.ndarray]]
"""Name of a field, split and client -> its values, one array a slice of that file."""


def tune(denoiser: Denoiser, slices: Slices) -> tuple[float, float]:
    """Choose the strength with the highest mean PSNR on the whole image.

    Args:
        denoiser: Whose strength.
        slices: Slices that are not test slices; at most 12 of them, evenly spaced, are used.

    Returns:
        The strength and its mean PSNR in dB.
    """
    chosen = np.linspace(0, len(slices) - 1, min(TUNING_SLICES, len(slices))).astype(int)
    few = slices.take(np.unique(chosen).tolist())
    grid = denoiser.strengths(few)
    means = [float(_psnr(denoiser.apply(few, strength), few.full).mean()) for strength in grid]
    best = int(np.argmax(means))
    return grid[best], means[best]


def classical_scores(
    prepared: Prepared,
    simulation: Simulation,
    clinical_windows: Mapping[str, Window],
    read_field: ReadField,
    names: Sequence[str] = tuple(DENOISERS),
) -> LongTable:
    """Tune every classical denoiser and score it on the test slices of every protocol.

    Args:
        prepared: The data set; clients without validation slices are tuned on training slices.
        simulation: How its scans were simulated.
        clinical_windows: Further HU windows of the metrics.
        read_field: Gives the fields that they read.
        names: Keys of ``DENOISERS``.

    Returns:
        The columns of ``slices.parquet`` and ``method``; split "test" for seen protocols,
        "unseen/classical" for unseen ones, and "strength" for the chosen strengths.
    """

    def slices_of(client: PreparedClient, split: str, fields: Sequence[str]) -> Slices:
        data = read_client_data(_file(client, split))
        extra = {name: read_field(name, split, client.id) for name in fields}
        return Slices(data.low, data.full, client.protocol, simulation, prepared.window_hu, extra)

    rows: list[tuple[Any, ...]] = []
    for denoiser in (DENOISERS[name] for name in names):
        title, fields = denoiser.title, denoiser.fields
        strengths = {
            client.id: tune(denoiser, slices_of(client, _tuning_split(client), fields))[0]
            for client in prepared.clients
        }
        for client, split in _protocols(prepared):
            source = client if client.id in strengths else nearest(client, prepared.clients)
            strength = strengths[source.id]
            rows.append((title, client.id, "strength", source.id, 0, "strength", strength))
            if client.test is not None:
                data = read_client_data(client.test)
                scores = score_slices(
                    denoiser.apply(slices_of(client, split, fields), strength),
                    data.full,
                    data.body,
                    prepared.window_hu,
                    clinical_windows,
                )
                rows += _rows(title, client.id, _SCORED_AS[split], data, scores)
    return LongTable(CLASSICAL_COLUMNS, rows)


def nearest(client: PreparedClient, others: Sequence[PreparedClient]) -> PreparedClient:
    """Return the client with the nearest normalised protocol (Euclidean)."""
    by_id = {other.id: other for other in others}
    protocols = {id: other.protocol for id, other in by_id.items()}
    return by_id[nearest_protocol(client.protocol, protocols)]


def add_classical(run_dir: str | Path) -> Path:
    """Score the classical denoisers on a run's data and keep the result in its directory.

    The data set comes from the cache that the run filled, and is made again where it is gone. The
    sinograms are made once and stay in the cache: up to 2.1 MB a slice under the paper's protocols.

    Args:
        run_dir: A run directory on this machine.

    Returns:
        The file that ``compare`` picks up.

    Raises:
        PhysFedError: The directory is not local or holds no run, or this version makes other data
            than those of the run.
    """
    from physfed_ray.data.on_demand import make_field, read_made
    from physfed_ray.data.plan import plan  # reads DICOM and text models: not for a report
    from physfed_ray.data.prepare import prepare
    from physfed_ray.experiment import load_experiment

    directory = RunDirectory(run_dir)
    local = directory.local_path
    if local is None:
        raise PhysFedError(f"{run_dir} is not on this machine; copy the run directory here first")
    check_scanner(directory)
    experiment = load_experiment(local / "experiment.yaml")
    prepared = prepare(experiment)
    check_input(directory, prepared)
    todo = plan(experiment)
    names = _possible(measured=experiment.data.source.pairs is not None)
    for name in dict.fromkeys(name for d in names for name in DENOISERS[d].fields):
        make_field(todo, name, _files(prepared))
    scores = classical_scores(
        prepared,
        experiment.data.simulation,
        experiment.data.clinical_windows,
        partial(read_made, todo),
        names,
    )
    directory.write(CLASSICAL_FILE, scores.to_parquet())
    return local / CLASSICAL_FILE


def has_classical(directory: RunDirectory) -> bool:
    """Return whether a run directory holds the scores of every classical denoiser that it can."""
    scored = directory.read_table(CLASSICAL_FILE, CLASSICAL_COLUMNS).distinct("method")
    source = directory.read_yaml("experiment.yaml")["data"]["source"]
    names = _possible(measured=source.get("pairs") is not None)
    return {DENOISERS[name].title for name in names} <= set(scored)


def _possible(*, measured: bool) -> tuple[str, ...]:
    """Return the classical denoisers that a data set allows: measured pairs have no sinograms."""
    return tuple(name for name, d in DENOISERS.items() if not (measured and d.fields))


def check_scanner(directory: RunDirectory) -> None:
    """Refuse a run whose file does not say how fine the scanned object was.

    Raises:
        PhysFedError: The run is of a version that scanned otherwise.
    """
    data = directory.read_yaml("experiment.yaml").get("data", {})
    if "object_scale" not in data:
        raise PhysFedError(
            f"{directory.root} was made by a version that scanned otherwise (its experiment.yaml "
            "has no data.object_scale), so that the classical denoisers would be scored on other "
            "data than its own; run the experiment again, or compare without them"
        )


def check_input(directory: RunDirectory, prepared: Prepared) -> None:
    """Refuse data on which the undenoised input scores otherwise than the run has recorded.

    Whatever makes other data is seen here: another version, folder, patient or seed.

    Args:
        directory: Of the run.
        prepared: The data set as it is now.

    Raises:
        PhysFedError: The numbers of slices, or the mean PSNR of a client, differ.
    """
    recorded = directory.read_table(SLICES_FILE, SLICE_COLUMNS).where(metric="psnr")
    for client, split in _protocols(prepared):
        if client.test is None:
            continue
        data = read_client_data(client.test)
        now = _psnr(data.low, data.full)
        then = recorded.where(split=f"{split}/input", client=client.id).values
        if len(now) != len(then) or abs(now.mean() - then.mean()) > INPUT_TOLERANCE_DB:
            raise PhysFedError(
                f"the data of {directory.root} cannot be made again: the input of {client.id} has "
                f"a PSNR of {_said(now)} here and of {_said(then)} in the run; run the experiment "
                "again with this version and these files, or compare without the classical "
                "denoisers"
            )


def _said(values: NDArray[np.float64]) -> str:
    mean = f"{values.mean():.2f} dB" if len(values) else "nothing"
    return f"{mean} over {len(values)} slices"


def _psnr(images: NDArray[np.float32], full: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the PSNR of slices in [0, 1] of the window, (N,) dB."""
    pairs = zip(images, full, strict=True)
    return np.concatenate([Psnr()(x[None], y[None], Context((0.0, 1.0))) for x, y in pairs])


_SCORED_AS = {"test": "test", "unseen": "unseen/classical"}


def _protocols(prepared: Prepared) -> Iterator[tuple[PreparedClient, str]]:
    """Yield every client with the split of its test slices."""
    for client in prepared.clients:
        yield client, "test"
    for client in prepared.unseen:
        yield client, "unseen"


def _tuning_split(client: PreparedClient) -> str:
    for split in ("validation", "train"):
        path: Path | None = getattr(client, split)
        if path is not None and np.isfinite(read_client_data(path).full[0]).all():
            return split
    raise PhysFedError(
        f"client {client.id} has neither validation slices nor training slices with full dose to "
        "tune on: set data.validation_patients"
    )


def _file(client: PreparedClient, split: str) -> Path:
    path: Path = getattr(client, "test" if split == "unseen" else split)
    return path


def _files(prepared: Prepared) -> list[tuple[str, str]]:
    """Return the splits and clients of all files that are read."""
    tuned = [(_tuning_split(client), client.id) for client in prepared.clients]
    tested = [(split, client.id) for client, split in _protocols(prepared) if client.test]
    return tuned + tested


def _rows(
    title: str, client: str, split: str, data: ClientData, scores: Mapping[str, NDArray[np.float64]]
) -> list[tuple[Any, ...]]:
    return [
        (title, client, split, data.patient[k], int(data.slice[k]), metric, float(value))
        for metric, values in scores.items()
        for k, value in enumerate(values)
    ]

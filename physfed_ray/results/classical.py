"""Denoisers that learn nothing: total variation and non-local means, tuned on validation slices.

They answer whether a network was worth training. Each has one strength, chosen for every protocol
on slices of its own (never on test patients); an unseen protocol takes the strength of the seen
protocol with the nearest g. Sources: Chambolle 2004; Buades, Coll and Morel 2005; as implemented
in scikit-image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from physfed_ray.ct.protocol import further_of
from physfed_ray.data.prepared import Prepared, PreparedClient
from physfed_ray.data.store import ClientData, read_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.metrics.scoring import score_slices
from physfed_ray.rundir.long_table import SLICE_COLUMNS, LongTable
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.window import Window

CLASSICAL_FILE = "classical.parquet"
STRENGTHS = tuple(0.002 * 1.5**k for k in range(11))  # 6 to 346 HU of a window of 3000 HU
TUNING_SLICES = 12
_COLUMNS = ("method", *SLICE_COLUMNS)


def _total_variation(image: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    chambolle: Callable[..., NDArray[np.float32]] = denoise_tv_chambolle
    return np.asarray(chambolle(image, weight=strength), dtype=np.float32)


def _non_local_means(image: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    denoised = denoise_nl_means(image, patch_size=5, patch_distance=6, h=strength, fast_mode=True)
    return np.asarray(denoised, dtype=np.float32)


@dataclass(frozen=True)
class Denoiser:
    """A classical denoiser.

    Attributes:
        title: What tables call it.
        apply: One image (n, n) float32 in [0, 1] and a strength -> the denoised image.
    """

    title: str
    apply: Callable[[NDArray[np.float32], float], NDArray[np.float32]]


DENOISERS: Mapping[str, Denoiser] = {
    "tv": Denoiser("Total variation", _total_variation),
    "nlm": Denoiser("Non-local means", _non_local_means),
}


def denoise(name: str, low: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """Denoise slices.

    Args:
        name: A key of ``DENOISERS``.
        low: (N, n, n) float32 in [0, 1] of the window.
        strength: TV's weight, or the h of non-local means, in units of the window.

    Returns:
        (N, n, n) float32.
    """
    apply = DENOISERS[name].apply
    return np.stack([apply(np.array(image), strength) for image in low])


def tune_classical(
    name: str, data: ClientData, strengths: Sequence[float] = STRENGTHS
) -> tuple[float, float]:
    """Choose the strength with the highest mean PSNR on the whole image.

    Args:
        name: A key of ``DENOISERS``.
        data: Slices that are not test slices; at most 12 of them, evenly spaced, are used.
        strengths: The grid.

    Returns:
        The strength and its mean PSNR in dB.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(TUNING_SLICES, len(data))).astype(int))
    low, full = np.asarray(data.low)[chosen], np.asarray(data.full)[chosen]
    body = np.asarray(data.body)[chosen]
    best = (strengths[0], -np.inf)
    for strength in strengths:
        scores = score_slices(denoise(name, low, strength), full, body, (0.0, 1.0), {})
        mean = float(scores["psnr"].mean())
        if mean > best[1]:
            best = (strength, mean)
    return best


def classical_scores(
    prepared: Prepared,
    clinical_windows: Mapping[str, Window],
    names: Sequence[str] = tuple(DENOISERS),
) -> LongTable:
    """Tune every classical denoiser and score it on the test slices of every protocol.

    Args:
        prepared: The data set; clients without validation slices are tuned on training slices.
        clinical_windows: Further HU windows of the metrics.
        names: Keys of ``DENOISERS``.

    Returns:
        The columns of ``slices.parquet`` and ``method``; split "test" for seen protocols,
        "unseen/classical" for unseen ones, and "strength" for the chosen strengths.
    """
    rows: list[tuple[Any, ...]] = []
    for name in names:
        title = DENOISERS[name].title
        strengths = {
            client.id: tune_classical(name, _tuning_data(client))[0] for client in prepared.clients
        }
        for client, split in _tested(prepared):
            source = client if client.id in strengths else nearest(client, prepared.clients)
            strength = strengths[source.id]
            rows.append((title, client.id, "strength", source.id, 0, "strength", strength))
            data = read_client_data(client.test) if client.test else None
            if data is not None:
                denoised = denoise(name, data.low, strength)
                scores = score_slices(
                    denoised, data.full, data.body, prepared.window_hu, clinical_windows
                )
                rows += _rows(title, client.id, split, data, scores)
    return LongTable(_COLUMNS, rows)


def nearest(client: PreparedClient, others: Sequence[PreparedClient]) -> PreparedClient:
    """Return the client with the nearest normalised protocol (Euclidean)."""
    further = further_of(part.protocol for part in (client, *others))
    g = client.protocol.normalised(further)
    return min(others, key=lambda o: float(np.linalg.norm(o.protocol.normalised(further) - g)))


def add_classical(run_dir: str | Path) -> Path:
    """Score the classical denoisers on a run's data and keep the result in its directory.

    The data set comes from the cache that the run filled, and is made again where it is gone.

    Args:
        run_dir: A run directory on this machine.

    Returns:
        The file that ``compare`` picks up.

    Raises:
        PhysFedError: The directory is not local or holds no run.
    """
    from physfed_ray.data.prepare import prepare  # reads DICOM and text models: not for a report
    from physfed_ray.experiment import load_experiment

    directory = RunDirectory(run_dir)
    local = directory.local_path
    if local is None:
        raise PhysFedError(f"{run_dir} is not on this machine; copy the run directory here first")
    experiment = load_experiment(local / "experiment.yaml")
    scores = classical_scores(prepare(experiment), experiment.data.clinical_windows)
    directory.write(CLASSICAL_FILE, scores.to_parquet())
    return local / CLASSICAL_FILE


def _tuning_data(client: PreparedClient) -> ClientData:
    path = client.validation or client.train
    if path is None:
        raise PhysFedError(f"client {client.id} has neither validation nor training slices to tune")
    return read_client_data(path)


def _tested(prepared: Prepared) -> Iterator[tuple[PreparedClient, str]]:
    for client in prepared.clients:
        yield client, "test"
    for client in prepared.unseen:
        yield client, "unseen/classical"


def _rows(
    title: str, client: str, split: str, data: ClientData, scores: Mapping[str, NDArray[np.float64]]
) -> list[tuple[Any, ...]]:
    return [
        (title, client, split, data.patient[k], int(data.slice[k]), metric, float(value))
        for metric, values in scores.items()
        for k, value in enumerate(values)
    ]

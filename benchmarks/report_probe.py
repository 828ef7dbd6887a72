"""What f_t knows: a linear probe tells chest, abdomen and extremity apart on held-out patients.

Every patient of a folder of CT is scanned under several protocols, every low-dose slice gets its
report and embedding, and a multinomial logistic regression on the embeddings, standardised over
the training patients, learns the region. Patients are dealt into three folds that hold every
region, several times over; a fold's patients are never trained on, and how strongly the weights are
penalised is chosen on the other two folds, each in turn held out. Beside it the same probe on the
mean intensities of a 16 x 16 grid, and on embeddings with the labels dealt out to other patients.

The labels are known for the CT of ``../shared/ct`` alone, in two ways: ``by_patient`` as its README
says it, without the slices of A0001 that it excepts, and ``by_slice`` as a person saw them, where
the liver and stomach below the lungs are abdomen whoever's they are. Necks and shoulders belong to
no region. Prints one JSON line.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from physfed_ray.cache import cache_folder
from physfed_ray.ct.protocol import select_presets
from physfed_ray.ct.simulation import Simulation, default_object_scale
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.scanning import do_shard
from physfed_ray.data.shards import ClientShards, Patient, ShardSettings, shard_path
from physfed_ray.data.store import read_scans
from physfed_ray.experiment import Reports

REGIONS = ("chest", "abdomen", "extremity")
CHEST, ABDOMEN, EXTREMITY, NEITHER = 0, 1, 2, -1
ABDOMEN_PATIENTS = ("A027284", "A062055", "A067967")
A0001, A0002 = "Lung_Dx-A0001", "Lung_Dx-A0002"
A0001_NECK_FROM = 21
"""Slices are counted from the feet."""
A0001_ABDOMEN_BELOW, A0002_ABDOMEN_BELOW = 2, 5
FOLDS = 3
GRID = 16
BATCH = 32
PENALTIES = (1.0, 0.1, 0.01, 0.001)
"""Weights of the squared weights beside the mean loss, tried on the training patients."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ct", type=Path, default=Path("../shared/ct"), help="folder of DICOM")
    parser.add_argument("--protocols", default="paper-*", help="pattern over preset names")
    parser.add_argument("--size", type=int, default=256, help="side of the slices in pixels")
    parser.add_argument("--splits", type=int, default=10, help="times that patients are dealt")
    parser.add_argument("--reports", type=json.loads, default={}, help="the experiment's `reports`")
    return parser.parse_args()


@dataclass(frozen=True)
class Slices:
    """N described low-dose slices.

    Attributes:
        embedding: Mean of the real vectors of f_t, (N, d) float32.
        grid: Mean intensities, (N, 256) float32, thousands of HU.
        patient: Whose they are.
        position: Index along the patient's body, from the feet.
        opening: First sentence of the report.
    """

    embedding: np.ndarray
    grid: np.ndarray
    patient: list[str]
    position: np.ndarray
    opening: list[str]


def describe_all(options: argparse.Namespace) -> Slices:
    """Scan every patient under every protocol, and describe every slice."""
    describer = Reports.model_validate(options.reports).make()
    source, cache = DicomSource(options.ct, 1), cache_folder(None)
    settings = ShardSettings(
        1, None, (-1000, 2000), "body", Simulation(options.size, default_object_scale(options.size))
    )
    found: list[Slices] = []
    for patient in source.ids():
        fingerprint, count = source.fingerprint(patient), source.slice_count(patient)
        for name, protocol in select_presets(options.protocols).items():
            shards = ClientShards(settings, name, protocol)
            shard = shards.shard(Patient(patient, "probe", fingerprint, count))
            if not shard_path(cache, shard.key).is_file():
                do_shard(source, settings, shard, cache)
            hu = read_scans(shard_path(cache, shard.key)).hu.astype(np.float32)
            found += [
                _described(describer, hu[start : start + BATCH], patient, start)
                for start in range(0, len(hu), BATCH)
            ]
    return Slices(
        *(np.concatenate([getattr(s, name) for s in found]) for name in ("embedding", "grid")),
        [patient for s in found for patient in s.patient],
        np.concatenate([s.position for s in found]),
        [opening for s in found for opening in s.opening],
    )


def _described(describer: Any, hu: np.ndarray, patient: str, start: int) -> Slices:
    described = describer.describe(hu)
    mask = described.mask[..., None]
    side = hu.shape[-1] // GRID
    grid = hu[:, : GRID * side, : GRID * side].reshape(len(hu), GRID, side, GRID, side)
    return Slices(
        (described.embedding * mask).sum(1) / mask.sum(1),
        grid.mean((2, 4)).reshape(len(hu), -1) / 1000,
        [patient] * len(hu),
        np.arange(start, start + len(hu)),
        [report.split(". ")[0] for report in described.report],
    )


def labels_of(slices: Slices, by: str) -> np.ndarray:
    """Return the region of each slice, (N,), -1 where it is none of them."""
    return np.array(
        [_region(*key, by) for key in zip(slices.patient, slices.position, strict=True)]
    )


def _region(patient: str, position: int, by: str) -> int:
    if patient.startswith("STS_"):
        return EXTREMITY
    if patient in ABDOMEN_PATIENTS:
        return ABDOMEN
    if patient == A0001 and position >= A0001_NECK_FROM:
        return NEITHER
    if patient == A0001 and position < A0001_ABDOMEN_BELOW:
        return ABDOMEN if by == "by_slice" else NEITHER
    if patient == A0002 and position < A0002_ABDOMEN_BELOW and by == "by_slice":
        return ABDOMEN
    return CHEST


def folds_of(main: dict[str, int], rng: np.random.Generator) -> list[set[str]]:
    """Deal patients into folds, each region's in turn, so that every fold has some of each."""
    folds: list[set[str]] = [set() for _ in range(FOLDS)]
    for region in range(len(REGIONS)):
        own = [patient for patient, r in main.items() if r == region]
        for turn, patient in enumerate(rng.permutation(own)):
            folds[turn % FOLDS].add(str(patient))
    return folds


def fit(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Return the weights (d + 1, 3) of a multinomial logistic regression, all regions alike.

    Args:
        x: Standardised features, (N, d + 1), the last of them 1.
        y: Regions, (N,).
        penalty: Weight of the squared weights beside the mean loss.
    """
    counts = np.bincount(y, minlength=len(REGIONS))
    weight = (1.0 / (np.count_nonzero(counts) * np.maximum(counts, 1)))[y]
    target = np.eye(len(REGIONS))[y]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(x.shape[1], -1)
        scores = x @ w
        scores -= scores.max(1, keepdims=True)
        log = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        value = -(weight * log[np.arange(len(y)), y]).sum() + penalty / 2 * (w[:-1] ** 2).sum()
        gradient = x.T @ (weight[:, None] * (np.exp(log) - target))
        gradient[:-1] += penalty * w[:-1]
        return float(value), gradient.ravel()

    start = np.zeros(x.shape[1] * len(REGIONS))
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(best.x).reshape(x.shape[1], -1)


def predict(
    x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, penalty: float
) -> np.ndarray:
    """Fit on the training slices and return the regions said of the test slices."""
    mean, std = x[train].mean(0), x[train].std(0)
    z = np.column_stack([(x - mean) / np.maximum(std, 1e-6), np.ones(len(x))])
    said: np.ndarray = (z[test] @ fit(z[train], y[train], penalty)).argmax(1)
    return said


def held_out(
    x: np.ndarray, y: np.ndarray, patient: np.ndarray, folds: Sequence[set[str]]
) -> np.ndarray:
    """Return the region that the probe says of each slice, (N,), its patient not trained on."""
    tests = [np.isin(patient, sorted(fold)) for fold in folds]
    said = np.full(len(y), NEITHER)
    for test in tests:
        inner = [other for other in tests if other is not test]

        def right(penalty: float, test: np.ndarray = test, inner: Any = inner) -> int:
            return sum(
                int((predict(x, y, ~test & ~other, other, penalty) == y[other]).sum())
                for other in inner
            )

        said[test] = predict(x, y, ~test, test, max(PENALTIES, key=right))
    return said


def probe(slices: Slices, by: str, splits: int) -> dict[str, Any]:
    """Return the accuracies of the probe and of its controls under one way of labelling."""
    y = labels_of(slices, by)
    kept = y != NEITHER
    y, patient = y[kept], np.array(slices.patient)[kept]
    embedding, grid = slices.embedding[kept].astype(float), slices.grid[kept].astype(float)
    main = {p: int(np.bincount(y[patient == p]).argmax()) for p in sorted(set(patient))}
    scores: dict[str, list[float]] = {"embedding": [], "balanced": [], "grid": [], "shuffled": []}
    confusion = np.zeros((len(REGIONS), len(REGIONS)))
    for split in range(splits):
        rng = np.random.default_rng(split)
        folds = folds_of(main, rng)
        said = held_out(embedding, y, patient, folds)
        np.add.at(confusion, (y, said), 1 / splits)
        scores["embedding"].append(float((said == y).mean()))
        recall = [(said == y)[y == region].mean() for region in range(len(REGIONS))]
        scores["balanced"].append(float(np.mean(recall)))
        scores["grid"].append(float((held_out(grid, y, patient, folds) == y).mean()))
        dealt = dict(zip(main, rng.permutation(list(main.values())), strict=True))
        wrong = np.array([dealt[p] for p in patient])
        said = held_out(embedding, wrong, patient, folds_of(dealt, rng))
        scores["shuffled"].append(float((said == wrong).mean()))
    return {
        "slices": dict(zip(REGIONS, np.bincount(y).tolist(), strict=True)),
        "patients": {r: list(main.values()).count(k) for k, r in enumerate(REGIONS)},
        "accuracy": {k: round(float(np.mean(v)), 4) for k, v in scores.items()},
        "worst_split": {k: round(min(v), 4) for k, v in scores.items()},
        "true_rows_said_columns": confusion.round(1).tolist(),
        "commonest": round(float(np.bincount(y).max() / len(y)), 4),
    }


def main() -> None:
    """Describe, probe, and print."""
    options = parse()
    start = time.perf_counter()
    slices = describe_all(options)
    seconds = time.perf_counter() - start
    result = {
        "benchmark": "report_probe",
        "size": options.size,
        "protocols": list(select_presets(options.protocols)),
        "dim": slices.embedding.shape[1],
        "seconds_to_scan_and_describe": round(seconds, 1),
        "splits": options.splits,
    }
    result |= {by: probe(slices, by, options.splits) for by in ("by_slice", "by_patient")}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Which region the measured reporter names: trains its networks and counts, patient by patient.

    python benchmarks/report_regions.py                  # count; some 15 minutes on two cores
    python benchmarks/report_regions.py --write          # and write physfed_ray/reports/regions.npz

Trained on phantoms and on the labelled real CT, varied as hospitals vary (``region_slices.py``).
Counted on slices that were truly scanned, each under a protocol and at a size drawn for it: of real
CT with networks that never saw the patient, of phantoms that nothing was trained on, and of images
that show no region. ``right`` counts both names of a slice that lies between two regions. The
written networks are trained on all patients. Prints one JSON line, then Markdown.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from region_slices import Labelled, nonsense, phantom_slices, quick, real_slices, scanned, vary

from physfed_ray.ct.protocol import select_presets
from physfed_ray.reports.measurements import measure, smooth
from physfed_ray.reports.regions import REGIONS, SURE, WEIGHTS, Networks, features

NONE = len(REGIONS)
SIZES = (64, 96, 128, 192, 256)
NETWORKS, HIDDEN, STEPS, BATCH = 3, 24, 800, 384
RATE, DECAY, SMOOTHING, JITTER, DROP = 4e-3, 0.02, 0.08, 0.15, 0.15


@dataclass(frozen=True)
class Row:
    """A measured slice: its features (F,), whose, which, and its one or two classes."""

    values: list[float]
    patient: str
    number: int
    region: int
    also: int
    real: bool


def measured(hu: np.ndarray) -> list[float] | None:
    """Return the features of one slice, (n, n)."""
    m = measure(smooth(hu[None].astype(np.float32))[0])
    return None if m is None else list(features(m).values())


def _rows(job: tuple[Sequence[tuple[int, Labelled]], bool, int, int]) -> list[Row]:
    """Measure some slices: scanned as they are, or ``repeats`` times varied."""
    torch.set_num_threads(1)
    slices, real, repeats, seed = job
    presets = list(select_presets("*").values())
    found = []
    for index, one in slices:
        for turn in range(max(1, repeats)):
            rng = np.random.default_rng((seed, index, turn))
            size, protocol = int(rng.choice(SIZES)), presets[rng.integers(len(presets))]
            if repeats:
                hu = quick(vary(one, rng) if turn else one, size, rng)
            else:
                hu = scanned(one, protocol, size, rng)
            values = measured(hu)
            also = REGIONS.index(one.also) if one.also else -1
            region = REGIONS.index(one.region)
            if values:
                found.append(Row(values, one.patient, one.number, region, also, real))
    return found


def rows_of(
    slices: Sequence[Labelled], real: bool, repeats: int, seed: int, processes: int
) -> list[Row]:
    """Measure slices in some processes."""
    numbered = list(enumerate(slices))
    jobs = [(numbered[k : k + 32], real, repeats, seed) for k in range(0, len(numbered), 32)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return [row for rows in pool.map(_rows, jobs) for row in rows]


def nothing(count: int, seed: int) -> list[Row]:
    """Measure images that show no region."""
    values = [measured(image) for image in nonsense(count, seed)]
    return [Row(v, "none", i, NONE, -1, False) for i, v in enumerate(values) if v]


def train(rows: Sequence[Row], seed: int = 0) -> Networks:
    """Fit the networks, each class and each patient in it weighted alike."""
    doubled = [*rows, *(Row(r.values, r.patient, r.number, r.also, -1, r.real) for r in rows
                        if r.also >= 0)]  # fmt: skip
    x = np.array([row.values for row in doubled])
    y = torch.tensor([row.region for row in doubled])
    low, high = np.percentile(x, (0.5, 99.5), axis=0).astype(np.float32)
    x = np.clip(x, low, high)
    mean, scale = x.mean(0).astype(np.float32), (x.std(0) + 1e-4).astype(np.float32)
    z = torch.tensor((x - mean) / scale, dtype=torch.float32)
    chance = torch.tensor(_weights(doubled))
    parts = [_fit(z, y, chance, seed + k) for k in range(NETWORKS)]
    arrays = [np.stack([part[k] for part in parts]) for k in range(4)]
    stored = [a.astype(np.float16) for a in arrays]
    return Networks(low, high, mean, scale, *stored)


def _weights(rows: Sequence[Row]) -> np.ndarray:
    """Return a chance of being drawn for each row: alike for real CT and phantoms of a class."""
    groups: dict[tuple[int, bool], dict[str, int]] = {}
    for row in rows:
        counts = groups.setdefault((row.region, row.real), {})
        counts[row.patient] = counts.get(row.patient, 0) + 1
    totals = {key: sum(np.sqrt(list(counts.values()))) for key, counts in groups.items()}
    return np.array(
        [
            groups[row.region, row.real][row.patient] ** -0.5 / totals[row.region, row.real]
            for row in rows
        ]
    )


def _fit(z: torch.Tensor, y: torch.Tensor, chance: torch.Tensor, seed: int) -> list[np.ndarray]:
    """Train one network; return hidden weights, bias, output weights, bias."""
    torch.manual_seed(seed)
    hidden, out = torch.nn.Linear(z.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, NONE + 1)
    drop, inner = torch.nn.Dropout(DROP), torch.nn.Dropout(2 * DROP)
    net = torch.nn.Sequential(drop, hidden, torch.nn.Tanh(), inner, out)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    for _ in range(STEPS):
        drawn = torch.multinomial(chance, BATCH, replacement=True)
        optimizer.zero_grad()
        loss(net(z[drawn] + JITTER * torch.randn(BATCH, z.shape[1])), y[drawn]).backward()
        optimizer.step()
        schedule.step()
    arrays = (hidden.weight.T, hidden.bias, out.weight.T, out.bias)
    return [array.detach().numpy() for array in arrays]


def said(networks: Networks, rows: Sequence[Row], sure: float) -> list[int]:
    """Return the class that is named of each row, ``NONE`` where none is."""
    found = networks.probabilities(np.array([row.values for row in rows]))
    best, best_of = found.argmax(1), found.max(1)
    return [int(b) if p >= sure else NONE for b, p in zip(best, best_of, strict=True)]


def count(rows: Sequence[Row], names: Sequence[int]) -> dict[str, int]:
    """Return how many were named right, left open, and named wrong."""
    pairs = list(zip(rows, names, strict=True))
    right = sum(name in (row.region, row.also) and name != NONE for row, name in pairs)
    unsure = sum(name == NONE for _, name in pairs)
    return {"slices": len(rows), "right": right, "unsure": unsure,
            "wrong": len(rows) - right - unsure}  # fmt: skip


def confusion(rows: Sequence[Row], names: Sequence[int]) -> list[list[int]]:
    """Return counts: a row of what is there, columns of what is said; the other name is right."""
    table = np.zeros((NONE + 1, NONE + 1), int)
    for row, name in zip(rows, names, strict=True):
        table[row.also if name == row.also else row.region, name] += 1
    return table.tolist()


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    lines = ["| patient | slices | right | unsure | wrong |", "|---|---:|---:|---:|---:|"]
    for name, c in (result["patients"] | result["together"]).items():
        lines.append(f"| {name} | {c['slices']} | {c['right']} | {c['unsure']} | {c['wrong']} |")
    for key in ("real", "phantoms"):
        lines += ["", f"| {key}: shown, said | {' | '.join(REGIONS)} | unsure |"]
        lines.append("|---" + "|---:" * (NONE + 1) + "|")
        lines += [
            f"| {REGIONS[k]} | {' | '.join(str(v) if v else '' for v in row)} |"
            for k, row in enumerate(result["confusion"][key][:NONE])
            if sum(row)
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure, train with each patient left out, count, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ct", type=Path, default=Path("../shared/ct"), help="folder of DICOM")
    parser.add_argument("--phantoms", type=int, default=40, help="of each region, for training")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the networks into the package")
    options = parser.parse_args()
    torch.set_num_threads(1)

    processes = options.processes
    real = list(real_slices(options.ct))
    training = rows_of(real, True, 6, 11, processes)
    training += rows_of(list(phantom_slices(options.phantoms, 5, 202)), False, 4, 12, processes)
    training += nothing(500, 3)
    tested = rows_of(real, True, 0, 13, processes)
    phantoms = rows_of(list(phantom_slices(4, 5, 909)), False, 0, 14, processes)
    useless = nothing(250, 77)

    whole = train(training)
    by_patient: dict[str, list[int]] = {}
    sure: dict[str, dict[str, int]] = {}
    held_out: list[tuple[Row, np.ndarray]] = []
    for patient in sorted({row.patient for row in tested}):
        own = [row for row in tested if row.patient == patient]
        networks = train([row for row in training if row.patient != patient])
        by_patient[patient] = said(networks, own, SURE)
        chances = networks.probabilities(np.array([row.values for row in own]))
        held_out += zip(own, chances, strict=True)
    rows = [row for row, _ in held_out]
    names = [name for names in by_patient.values() for name in names]
    for level in (0.4, 0.45, 0.5, 0.55, 0.6, 0.7):
        at = [int(p.argmax()) if p.max() >= level else NONE for _, p in held_out]
        sure[str(level)] = count(rows, at)
    plain = [k for k, row in enumerate(rows) if REGIONS[row.region] != "limb"]
    of_phantoms, of_useless = said(whole, phantoms, SURE), said(whole, useless, SURE)
    result = {
        "benchmark": "report_regions",
        "sure": SURE,
        "trained_on": len(training),
        "features": len(training[0].values),
        "patients": {
            p: count([r for r in rows if r.patient == p], n) for p, n in by_patient.items()
        },
        "together": {
            "all": count(rows, names),
            "without limbs": count([rows[k] for k in plain], [names[k] for k in plain]),
            "phantoms": count(phantoms, of_phantoms),
            "no region": count(useless, of_useless),
        },
        "by_threshold": sure,
        "confusion": {"real": confusion(rows, names), "phantoms": confusion(phantoms, of_phantoms)},
    }
    print(json.dumps(result))
    print(markdown(result))
    if options.write:
        np.savez_compressed(WEIGHTS, **vars(whole))


if __name__ == "__main__":
    main()

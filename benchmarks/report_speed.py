"""Slices per second of the measured reporter, of MiniLM, and of both, in 1 and 2 processes.

    python benchmarks/report_speed.py [--ct ../shared/ct] [--slices 64] [--processes 1 2]

Slices are real CT on the experiment's grid where ``--ct`` is there and phantoms otherwise, with
Gaussian noise so that no two reports are alike by chance. Each process computes with one thread, as
an actor of the pool does, on its own share of the slices in batches of 16. Reporter and encoder
have read their weights before the clock starts; a rate is that of all processes together, until the
last has finished. Prints one JSON line.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import rounded

from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import to_grid
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.experiment import Reports
from physfed_ray.reports.describer import Describer

BATCH = 16
NOISE_HU = 40.0
CT = Path(__file__).parents[2] / "shared" / "ct"
PARTS: dict[str, Callable[[np.ndarray, list[str]], object]] = {
    "reporter": lambda hu, _: describer().report(hu),
    "encoder": lambda _, texts: describer().embed(texts),
    "both": lambda hu, _: describer().describe(hu),
}

_barrier: Any = None


def main() -> None:
    """Measure every part in every number of processes and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ct", type=Path, default=CT, help="folder of DICOM")
    parser.add_argument("--slices", type=int, default=64, help="slices of each process")
    parser.add_argument("--size", type=int, default=256, help="pixels along a side")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # read when the libraries load, so start again
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)

    wanted = options.slices * max(options.processes)
    hu = load_slices(options.ct, wanted, options.size)
    result: dict[str, Any] = {
        "benchmark": "report_speed",
        "images": "ct" if options.ct.is_dir() else "phantom",
        "size": options.size,
        "slices": options.slices,
        "distinct_reports": len(set(describer().report(hu))),
        "cores": os.cpu_count(),
    }
    for processes in options.processes:
        result[f"processes_{processes}"] = rates(hu[: options.slices * processes], processes)
    print(json.dumps(result))


def load_slices(ct: Path, count: int, size: int) -> np.ndarray:
    """Return ``count`` noisy slices of all patients in turn, (N, n, n) float32 in HU."""
    real = ct.is_dir()
    source: Any = DicomSource(ct) if real else PhantomSource(10, -(-count // 10), 1, size)
    volumes = [source.load(patient, None) for patient in source.ids()]
    images = [
        to_grid(hu, spacing, size, "body").image
        for volume in volumes
        for hu, spacing in zip(volume.slices, volume.spacings_mm, strict=True)
    ]
    rng = np.random.default_rng(1)
    chosen = [images[i] for i in rng.permutation(max(count, len(images)))[:count] % len(images)]
    noise = rng.normal(0, NOISE_HU, (count, size, size))
    return (np.stack(chosen) + noise).astype(np.float32)


def rates(hu: np.ndarray, processes: int) -> dict[str, dict[str, float]]:
    """Return slices per second of each part, and the CPU time that one slice takes."""
    shares = np.array_split(hu, processes)
    context = get_context("spawn")
    found = {}
    with context.Pool(processes, set_barrier, [context.Barrier(processes)]) as pool:
        for part in PARTS:
            jobs = [(part, share) for share in shares]
            starts, ends, cpu = zip(*pool.starmap(work, jobs, chunksize=1), strict=True)
            found[part] = {
                "slices_per_s": rounded(len(hu) / (max(ends) - min(starts))),
                "cpu_ms_per_slice": rounded(1000 * sum(cpu) / len(hu)),
            }
    return found


def set_barrier(barrier: Any) -> None:
    """Keep what the processes wait at."""
    global _barrier
    _barrier = barrier


def work(part: str, hu: np.ndarray) -> tuple[float, float, float]:
    """Do one part of the work; return when it began and ended, and the CPU seconds it took."""
    texts = describer().report(hu)
    PARTS[part](hu[:1], texts[:1])
    # Each process can take one task only, because the barrier holds it until all have one.
    _barrier.wait()
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(hu), BATCH):
        PARTS[part](hu[start : start + BATCH], texts[start : start + BATCH])
    return began, time.perf_counter(), time.process_time() - cpu


@cache
def describer() -> Describer:
    """Return this process's reporter and encoder: measured, and MiniLM with one vector."""
    return Reports().make()


if __name__ == "__main__":
    main()

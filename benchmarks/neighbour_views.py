"""The front end ``neighbour_views`` beside FBP with the scanner's kernel and with a tuned one.

    python benchmarks/neighbour_views.py ../shared/ct --protocols 'paper-*' --size 256

Two slices of each patient are scanned under every protocol. Everything that is chosen (views,
threshold, sliding, kernel) is chosen on the validation patients; all others are the test. PSNR on
[-1000, 2000] HU, first the mean of a patient, then mean and standard error over patients.

* ``scanner``, ``tuned``: FBP with the scan's own kernel, and with the tuned one.
* ``views_scanner``, ``views``: neighbouring views with the scan's own kernel, and with a kernel
  chosen together with the rest.
* ``first``: the same, its threshold relative to the group's first singular value, as in the paper.
* ``mean``: a plain control, the weighted mean of a view and its two neighbours, the weight chosen
  together with the kernel.
* ``blocks``: the same as ``views`` with groups that do not slide.
* ``rank_1``: all views of the scan in one group of rank one, the control that must be terrible.
* ``clean``: what ``views`` changes, with its own settings, where the line integrals hold no noise:
  its blur alone.

``gain`` are differences to ``tuned``, patient by patient; but ``scanner`` is that of
``views_scanner`` to ``scanner``, and ``test_kernel`` that of ``views`` to an FBP whose kernel was
tuned on the test slices themselves: the control at its best. Prints a line of JSON for each
protocol.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rounding import rounded

from physfed_ray.ct.neighbouring import denoise_views
from physfed_ray.ct.protocol import Protocol, select_presets
from physfed_ray.ct.scan import expect, measure
from physfed_ray.ct.simulation import Simulation, default_object_scale
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import place
from physfed_ray.front_ends.base import Choice, FrontEnd, Measured
from physfed_ray.front_ends.fbp import (
    kernel_widths,
    scanner_width,
    squared_error,
    tuned_kernel,
    with_kernel,
)
from physfed_ray.front_ends.registry import make_front_end
from physfed_ray.front_ends.search import descend
from physfed_ray.seeds import generator

WINDOW_HU = (-1000.0, 2000.0)
VALIDATION = ("A002304", "A027284", "A056642", "Lung_Dx-A0001", "STS_007", "STS_013")
SHARES = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.333)
FRONT_ENDS: dict[str, dict[str, Any]] = {
    "tuned": {"name": "fbp", "kernel": "tuned"},
    "views_scanner": {"name": "neighbour_views", "kernel": "scanner"},
    "views": {"name": "neighbour_views"},
    "first": {"name": "neighbour_views", "relative_to": "first"},
    "blocks": {"name": "neighbour_views", "sliding": False},
}


@dataclass(frozen=True)
class Objects:
    """Slices of patients: the fine objects (N, m, m) and their means on the grid (N, n, n), HU."""

    patients: list[str]
    numbers: list[int]
    fine: NDArray[np.float32]
    full: NDArray[np.float32]


def main() -> None:
    """Measure every chosen protocol and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dicom", type=Path, help="folder of CT images")
    parser.add_argument("--protocols", default="paper-*", help="pattern over preset names")
    parser.add_argument("--size", type=int, default=256, help="pixels along a side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--validation", nargs="+", default=list(VALIDATION), help="patients")
    options = parser.parse_args()
    torch.set_num_threads(1)
    simulation = Simulation(options.size, default_object_scale(options.size))
    source = DicomSource(options.dicom)
    others = [patient for patient in source.ids() if patient not in options.validation]
    groups = [load(source, chosen, simulation) for chosen in (options.validation, others)]
    for name, protocol in select_presets(options.protocols).items():
        validation, test = (
            scan(objects, name, protocol, simulation, options.seed) for objects in groups
        )
        found = compare(validation[0], *test, groups[1].patients)
        head = {"benchmark": "neighbour_views", "protocol": name, "size": options.size}
        counts = {"seed": options.seed, "patients": len(others), "slices": len(test[1])}
        print(json.dumps(head | counts | rounded(found, 5)), flush=True)


def load(source: DicomSource, patients: list[str], simulation: Simulation) -> Objects:
    """Return two slices of each patient, a quarter of the way from either end."""
    rows = []
    for patient in patients:
        volume = source.load(patient, None)
        count = len(volume.slices)
        for number in sorted({(count - 1) // 4, count - 1 - (count - 1) // 4}):
            spacing_mm = volume.spacings_mm[number]
            placed = place(volume.slices[number], spacing_mm, simulation.image_size, "body")
            grid = placed.resample(simulation.object_scale)
            rows.append((patient, number, grid.object, grid.image))
    names, numbers, fine, full = zip(*rows, strict=True)
    return Objects(list(names), list(numbers), np.stack(fine), np.stack(full))


def scan(
    objects: Objects, name: str, protocol: Protocol, simulation: Simulation, seed: int
) -> tuple[Measured, NDArray[np.float32]]:
    """Return the slices as they are measured, and their line integrals without noise."""
    expected = expect(objects.fine, protocol, simulation)
    rngs = [
        generator(seed, name, patient, number, "noise")
        for patient, number in zip(objects.patients, objects.numbers, strict=True)
    ]
    noisy = measure(expected, protocol, rngs, simulation)
    return Measured(noisy, objects.full, protocol, simulation, WINDOW_HU), expected


def compare(
    validation: Measured, test: Measured, expected: NDArray[np.float32], patients: list[str]
) -> dict[str, Any]:
    """Choose every front end's settings on one set of slices and score it on the other."""
    protocol, simulation = test.protocol, test.simulation
    own = with_scanner_kernel(test.line_integrals, test)
    psnr = {"scanner": by_patient(own, test, patients)}
    choices, seconds = {}, {}
    for name, keys in FRONT_ENDS.items():
        front_end = make_front_end(**keys)
        began = time.process_time()
        choices[name] = dict(front_end.choose(validation))
        seconds[name] = time.process_time() - began
        hu = front_end.reconstruct(test.line_integrals, protocol, simulation, choices[name])
        psnr[name] = by_patient(hu, test, patients)
    choices["mean"] = dict(mean_choice(validation))
    psnr["mean"] = by_patient(mean_images(test, choices["mean"]), test, patients)
    width = choices["tuned"]["kernel_pixels"]
    one = denoise_views(test.line_integrals, protocol, protocol.views, np.inf, sliding=False)
    psnr["rank_1"] = by_patient(with_kernel(one, protocol, simulation, width), test, patients)
    found: dict[str, Any] = {name: float(values.mean()) for name, values in psnr.items()}
    gains = {name: psnr[name] - psnr["tuned"] for name in ("views", "first", "blocks", "mean")}
    best = with_kernel(test.line_integrals, protocol, simulation, tuned_kernel(test)[0])
    gains["test_kernel"] = psnr["views"] - by_patient(best, test, patients)
    gains["scanner"] = psnr["views_scanner"] - psnr["scanner"]
    found["gain"] = {name: mean_and_error(values) for name, values in gains.items()}
    views = make_front_end(**FRONT_ENDS["views"])
    found["clean"] = blur(views, choices["views"], test, expected, patients)
    return found | {"chosen": choices, "search_s": seconds}


def with_scanner_kernel(rows: NDArray[np.float32], slices: Measured) -> NDArray[np.float32]:
    """Return images as the scanner reconstructs them, HU."""
    width = scanner_width(slices.protocol, slices.simulation)
    return with_kernel(rows, slices.protocol, slices.simulation, width)


def mean_choice(slices: Measured) -> Choice:
    """Return the weight of each neighbour and the kernel's width that are best on some slices."""
    grids = {
        "weight": SHARES,
        "kernel_pixels": tuple(kernel_widths(slices.protocol, slices.simulation)),
    }
    seen: dict[tuple[float, ...], float] = {}

    def error(choice: Choice) -> float:
        key = tuple(choice.values())
        if key not in seen:
            seen[key] = squared_error(mean_images(slices, choice), slices)
        return seen[key]

    return descend(error, grids, {"weight": 0.0, "kernel_pixels": tuned_kernel(slices)[0]})


def mean_images(slices: Measured, choice: Choice) -> NDArray[np.float32]:
    """Return images of views that are averaged with their neighbours on a full circle, HU."""
    rows, share = slices.line_integrals, np.float32(choice["weight"])
    beside = np.roll(rows, 1, 1) + np.roll(rows, -1, 1)
    mixed = (1 - 2 * share) * rows + share * beside
    return with_kernel(mixed, slices.protocol, slices.simulation, choice["kernel_pixels"])


def blur(
    front_end: FrontEnd,
    choice: Choice,
    test: Measured,
    expected: NDArray[np.float32],
    patients: list[str],
) -> dict[str, float]:
    """Return what a front end changes without noise, beside FBP with the same kernel, dB."""
    protocol, simulation = test.protocol, test.simulation
    denoised = front_end.reconstruct(expected, protocol, simulation, choice)
    plain = with_kernel(expected, protocol, simulation, choice["kernel_pixels"])
    gains = by_patient(denoised, test, patients) - by_patient(plain, test, patients)
    return mean_and_error(gains)


def by_patient(
    hu: NDArray[np.float32], slices: Measured, patients: list[str]
) -> NDArray[np.float64]:
    """Return the mean PSNR of each patient, dB."""
    low, high = slices.window_hu
    apart = np.clip(hu, low, high).astype(np.float64) - np.clip(slices.full_hu, low, high)
    psnr = 10 * np.log10((high - low) ** 2 / np.square(apart).mean((1, 2)))
    names = np.array(patients)
    return np.array([psnr[names == name].mean() for name in dict.fromkeys(patients)])


def mean_and_error(values: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean over patients and its standard error, dB."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": float(values.mean()), "error": float(error)}


if __name__ == "__main__":
    main()

"""How fine the scanned object has to be, and where the streaks of sparse views come from.

    python benchmarks/scanner.py ../shared/ct

Two studies on one thread, each protocol's row on stderr as it is done, one line of JSON at the end.

``refinement``: slices of real CT (a chest, an abdomen, an extremity; two of each) are scanned as
objects of one to eight times the image's grid; the mean PSNR of the input against the label, and
how much it still changes from one refinement to the next.

``streaks``: ellipses (the head phantom, its skull at 1000 HU) are scanned without noise as objects
on such grids, and as what they are: by their exact line integrals, many rays a bin. In HU, inside
the circle, relative to the pixels' means: the root mean square error of the exact scan's image, and
how far from that image those of the gridded objects are.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ellipses import SHEPP_LOGAN, Ellipse, line_integrals
from numpy.typing import NDArray

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, inscribed_circle, mu_to_hu
from physfed_ray.ct.protocol import Protocol, select_presets
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation, fine_detector
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import Placed, place
from physfed_ray.window import normalise

PATIENTS = ("Lung_Dx-A0002", "A062055", "STS_044")
WINDOW_HU = (-1000.0, 2000.0)
RAYS_OF_THE_EXACT_SCAN = 8
SCALES = {128: (1, 2, 3, 4, 6, 8, 12), 256: (1, 2, 3, 4, 6)}
SAMPLES = {128: 48, 256: 24}
"""Points along a pixel, at which ellipses are sampled; the scales divide them."""


def main() -> None:
    """Run both studies for every chosen protocol."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path, help="folder of the real CT")
    parser.add_argument("--protocols", default="*", help="pattern over preset names")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SCALES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    protocols = select_presets(options.protocols)
    result: dict[str, Any] = {"benchmark": "scanner", "seed": 0}
    for size in options.sizes:
        slices = real_slices(options.ct, size)
        for name, protocol in protocols.items():
            row = {"refinement": refinement(slices, protocol), "streaks": streaks(protocol, size)}
            print(size, name, json.dumps(row), file=sys.stderr, flush=True)
            result.setdefault(str(size), {})[name] = row
    print(json.dumps(result))


def real_slices(folder: Path, size: int, patients: Sequence[str] = PATIENTS) -> list[Placed]:
    """Return two slices of each patient, at a quarter and three quarters of its length."""
    source, found = DicomSource(folder, 1), []
    for patient in patients:
        volume = source.load(patient, None)
        count = len(volume.slices)
        for k in (count // 4, 3 * count // 4):
            found.append(place(volume.slices[k], volume.spacings_mm[k], size, "body"))
    return found


def refinement(slices: list[Placed], protocol: Protocol) -> dict[str, float]:
    """Return the mean PSNR of the input, dB, for each refinement of the object."""
    size, found = slices[0].image_size, {}
    for scale in SCALES[size]:
        grids = [placed.resample(scale) for placed in slices]
        simulation = Simulation(size, scale)
        expected = expect(np.stack([grid.object for grid in grids]), protocol, simulation)
        rngs = [np.random.default_rng(k) for k in range(len(grids))]
        low = reconstruct(measure(expected, protocol, rngs, simulation), protocol, simulation)
        pairs = zip(low, grids, strict=True)
        found[str(scale)] = round(float(np.mean([psnr(hu, grid.image) for hu, grid in pairs])), 2)
    return found


def psnr(hu: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Return the PSNR in the window, dB."""
    error = normalise(hu, WINDOW_HU).astype(np.float64) - normalise(truth, WINDOW_HU)
    return float(-10 * np.log10(np.mean(error**2)))


def streaks(protocol: Protocol, size: int) -> dict[str, float]:
    """Return the error of the exact scan, and the gridded objects' distance from it, HU."""
    ellipses = [ellipse.scaled(protocol.field_radius_mm) for ellipse in SHEPP_LOGAN]
    rays = RAYS_OF_THE_EXACT_SCAN
    paths = line_integrals(ellipses, fine_detector(protocol, rays)) * MU_WATER_PER_MM
    bins = paths.reshape(protocol.views, protocol.bins, rays)
    exact = -np.log(np.exp(-bins).mean(axis=-1)).astype(np.float32)
    inside = inscribed_circle(size)
    simulation = Simulation(size)
    reference = reconstruct(exact[None], protocol, simulation)[0][inside]
    fine = sampled(ellipses, protocol, size)
    truth = gridded(fine, size)[inside]
    found = {"exact_scan_rms_hu": rms(reference - truth)}
    for scale in SCALES[size]:
        simulation = Simulation(size, scale)
        expected = expect(gridded(fine, simulation.object_size)[None], protocol, simulation)
        low = reconstruct(expected, protocol, simulation)[0][inside]
        found[f"apart_at_{scale}_hu"] = rms(low - reference)
        found[f"rms_at_{scale}_hu"] = rms(low - truth)
    return found


def sampled(ellipses: list[Ellipse], protocol: Protocol, size: int) -> NDArray[np.float32]:
    """Return the ellipses at ``SAMPLES`` points along each pixel of a grid."""
    fine = size * SAMPLES[size]
    centre = (np.arange(fine) - (fine - 1) / 2) * protocol.pixel_at(fine)
    total = np.zeros((fine, fine), np.float32)
    for ellipse in ellipses:
        x, y = ellipse.circular(centre - ellipse.x, -centre[:, None] - ellipse.y)
        total[x**2 + y**2 <= 1] += ellipse.value
    return total


def gridded(fine: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return the means of pixels of a grid, (size, size), HU."""
    step = len(fine) // size
    mean = fine.reshape(size, step, size, step).mean(axis=(1, 3))
    return mu_to_hu(mean * np.float32(MU_WATER_PER_MM))


def rms(values: NDArray[np.floating]) -> float:
    """Return the root mean square, rounded."""
    return round(float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))), 2)


if __name__ == "__main__":
    main()

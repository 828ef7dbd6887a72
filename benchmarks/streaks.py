"""What a scan explains of its own image (``ct.base_image``), before anything is learned.

    python benchmarks/streaks.py ../shared/ct --protocols 'paper-[246]' --scales 2 4 8

Slices of real CT (the validation patients of ``experiments/real_ct.yaml``) are scanned as objects
of several times the image's grid. Mean PSNR of the low-dose image ``low``; of ``low`` without its
streaks; of the two images by total variation, ``smooth`` (streaks left in) and ``base``; and, as
controls, of ``low`` less the whole of B A z - z, which also holds what grid and kernel do, and of
the total variation with the one weight that is best for the protocol on these very slices
(``tuned``). One thread; each protocol's row on stderr as it is done, one line of JSON at the end.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scanner import psnr, real_slices

from physfed_ray.ct.attenuation import hu_to_mu, mu_to_hu
from physfed_ray.ct.base_image import explain, total_variation
from physfed_ray.ct.noise_map import noise_map_hu
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import Protocol, select_presets
from physfed_ray.ct.scan import scan
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.grid import Placed

PATIENTS = ("A002304", "STS_007")
WEIGHTS = 2.0 * 1.5 ** np.arange(9)  # 2 to 51 HU


def main() -> None:
    """Measure every chosen protocol and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path, help="folder of the real CT")
    parser.add_argument("--protocols", default="*", help="pattern over preset names")
    parser.add_argument("--size", type=int, default=128, help="pixels along a side")
    parser.add_argument("--scales", type=int, nargs="*", default=[4], help="object to image")
    options = parser.parse_args()
    torch.set_num_threads(1)
    slices = real_slices(options.ct, options.size, PATIENTS)
    rows = {}
    for name, protocol in select_presets(options.protocols).items():
        for scale in options.scales:
            simulation = Simulation(options.size, scale)
            rows[f"{name} x{scale}"] = row = measured(slices, protocol, simulation)
            print(name, scale, json.dumps(row), file=sys.stderr, flush=True)
    print(json.dumps({"benchmark": "streaks", "size": options.size, "protocols": rows}))


def measured(slices: list[Placed], protocol: Protocol, simulation: Simulation) -> dict[str, float]:
    """Return the PSNRs of one protocol and one fineness of the object."""
    grids = [placed.resample(simulation.object_scale) for placed in slices]
    rngs = [np.random.default_rng(k) for k in range(len(grids))]
    low = scan(np.stack([grid.object for grid in grids]), protocol, rngs, simulation)
    full = np.stack([grid.image for grid in grids])
    found = explain(low, noise_map_hu(low, protocol), protocol)
    images = {
        "low": low,
        "without streaks": low - found.streaks,
        "without B A z - z": low - scanned_again(found.smooth, protocol) + found.smooth,
        "smooth": found.smooth,
        "base": found.base,
    }
    scores = {name: mean_psnr(image, full) for name, image in images.items()}
    tuned = [mean_psnr(total_variation(low, np.full(len(low), w)), full) for w in WEIGHTS]
    return {name: round(value, 2) for name, value in (scores | {"tuned": max(tuned)}).items()}


def mean_psnr(images: NDArray[np.float32], full: NDArray[np.float32]) -> float:
    """Return the mean over slices of the PSNR, dB."""
    return float(np.mean([psnr(*pair) for pair in zip(images, full, strict=True)]))


def scanned_again(hu: NDArray[np.float32], protocol: Protocol) -> NDArray[np.float32]:
    """Return B A z of images (B, n, n), HU."""
    scanner, mu = FanBeam(protocol, hu.shape[-1]), torch.from_numpy(hu_to_mu(hu))[:, None]
    return mu_to_hu(scanner.fbp(scanner.project(mu))[:, 0].numpy())


if __name__ == "__main__":
    main()

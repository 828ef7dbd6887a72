"""The noise's standard deviation map (``ct.noise_map``) beside Monte Carlo, for every protocol.

    python benchmarks/noise_map.py --protocols 'paper-*' --size 128 --draws 200
    python benchmarks/noise_map.py --dicom ../shared/ct

The object, a slice of each of some patients, is finer than the image; its line integrals are
measured again and again, each time with other noise. The standard deviation of these images is
compared with the map in every pixel of the body, by the median of map / Monte Carlo and by the
correlation of the two. Three maps: of the line integrals themselves (``known``), of the full-dose
image (``full``), and of one low-dose image, as the field ``sigma`` is made (``low``; ``low_range``
holds 90% of its pixels). ``noise_hu`` is the median of Monte Carlo. Prints one line of JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, hu_to_mu, mu_to_hu
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS, add_noise
from physfed_ray.ct.noise_map import noise_map_hu, propagate, ray_variance
from physfed_ray.ct.projection import project
from physfed_ray.ct.protocol import Protocol, select_presets
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import to_grid
from physfed_ray.data.patient import PatientSource
from physfed_ray.data.phantom import PhantomSource

BATCH = 20


def main() -> None:
    """Measure every chosen protocol and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocols", default="*", help="pattern over preset names")
    parser.add_argument("--size", type=int, default=128, help="pixels along a side")
    parser.add_argument("--object-scale", type=int, default=4, help="how much finer the object is")
    parser.add_argument("--kernel-pixels", type=float, default=0.85, help="of this grid's pixels")
    parser.add_argument("--patients", type=int, default=3)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--dicom", type=Path, help="a folder of CT images in place of phantoms")
    options = parser.parse_args()
    torch.set_num_threads(1)

    source: PatientSource = (
        DicomSource(options.dicom)
        if options.dicom
        else PhantomSource(options.patients, 1, 1, size=options.size * options.object_scale)
    )
    chosen = sorted(source.ids())[: options.patients]
    objects = [on_grid(source, patient, options.size, options.object_scale) for patient in chosen]
    rows = {}
    for name, protocol in select_presets(options.protocols).items():
        kernel_mm = options.kernel_pixels * protocol.pixel_at(options.size)
        pixels = [compare(*slice_, protocol, kernel_mm, options.draws) for slice_ in objects]
        rows[name] = summary(np.concatenate(pixels, axis=1))
    result = {
        "benchmark": "noise_map",
        "source": "dicom" if options.dicom else "phantom",
        "size": options.size,
        "object_scale": options.object_scale,
        "kernel_pixels": options.kernel_pixels,
        "slices": len(objects),
        "draws": options.draws,
        "protocols": rows,
    }
    print(json.dumps(result))


def on_grid(
    source: PatientSource, patient: str, size: int, scale: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a patient's middle slice, (scale * n, scale * n) HU, and its body, (n, n)."""
    volume = source.load(patient, None)
    middle = len(volume.slices) // 2
    fine = to_grid(volume.slices[middle], volume.spacings_mm[middle], size * scale, "body")
    body = fine.body.reshape(size, scale, size, scale).mean((1, 3)) > 0.5
    return fine.image, body


def compare(
    hu: NDArray[np.float32],
    body: NDArray[np.bool_],
    protocol: Protocol,
    kernel_mm: float,
    draws: int,
) -> NDArray[np.float64]:
    """Return Monte Carlo and the maps ``known``, ``full``, ``low`` in the body, (4, pixels) HU."""
    n, per_hu = len(body), 1000 / MU_WATER_PER_MM
    line_integrals = project(hu_to_mu(hu)[None], protocol)[0]
    low_hu, measured = monte_carlo(line_integrals, protocol, n, kernel_mm, draws)
    exact = torch.from_numpy(line_integrals)[None].double()
    variance = ray_variance(exact, protocol.photons, ELECTRONIC_NOISE_COUNTS)
    known = propagate(variance, protocol, n, kernel_mm)[0].sqrt().numpy() * per_hu
    scale = len(hu) // n
    full_hu = hu.reshape(n, scale, n, scale).mean((1, 3))
    full, low = (
        noise_map_hu(image[None], protocol, kernel_mm=kernel_mm)[0] for image in (full_hu, low_hu)
    )
    return np.stack([image[body] for image in (measured, known, full, low)]).astype(np.float64)


def monte_carlo(
    line_integrals: NDArray[np.float32], protocol: Protocol, n: int, kernel_mm: float, draws: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return one noisy reconstruction and the standard deviation of many, both (n, n) HU."""
    rng = np.random.default_rng(1)
    total, squares = np.zeros((n, n)), np.zeros((n, n))
    centre: NDArray[np.float32] | None = None
    for start in range(0, draws, BATCH):
        count = min(BATCH, draws - start)
        noisy = np.stack([add_noise(line_integrals, protocol.photons, rng) for _ in range(count)])
        hu = mu_to_hu(fbp(torch.from_numpy(noisy), protocol, n, kernel_mm).numpy())
        centre = hu[0] if centre is None else centre
        total += (hu - centre).sum(0)
        squares += np.square(hu - centre, dtype=np.float64).sum(0)
    assert centre is not None
    return centre, np.sqrt((squares - total**2 / draws) / (draws - 1))


def summary(pixels: NDArray[np.float64]) -> dict[str, Any]:
    """Return how the maps compare with Monte Carlo in all pixels of all bodies."""
    measured = pixels[0]
    found: dict[str, Any] = {"noise_hu": round(float(np.median(measured)), 1)}
    for name, values in zip(("known", "full", "low"), pixels[1:], strict=True):
        found[name] = round(float(np.median(values / measured)), 4)
        found[f"{name}_correlation"] = round(float(np.corrcoef(values, measured)[0, 1]), 4)
    found["low_range"] = np.quantile(pixels[3] / measured, (0.05, 0.95)).round(3).tolist()
    return found


if __name__ == "__main__":
    main()

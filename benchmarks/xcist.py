r"""The noise model beside a full physics simulator: XCIST (``gecatsim``), on one phantom.

XCIST needs an environment of its own, where this package need not be installed. Its source package
builds a C library, whose build files have DOS line ends that bash and make stumble over:

    python3.11 -m venv /path/to/xcist
    /path/to/xcist/bin/pip download --no-deps --no-binary :all: gecatsim==1.6.9
    tar xzf gecatsim-1.6.9.tar.gz
    sed -i 's/\r$//' gecatsim-1.6.9/gecatsim/clib_build/{BuildLinux64,Makefile,MakeVariables_*}
    /path/to/xcist/bin/pip install torch==2.13.0 numpy scipy ./gecatsim-1.6.9
    PYTHONPATH=. /path/to/xcist/bin/python benchmarks/xcist.py

The scanner is ``paper-3``; XCIST's detector is one flat row of its bins. The object is a cylinder
of water with a rod of bone and a hole. XCIST's tube current is set such that its middle bin detects
the protocol's photons in air; a reading is scaled to photons by their mean energy, and electronic
noise has the protocol's ten counts squared. The logarithm is taken as ours is. ``--repeats`` noisy
readings of a few standing views (an eighth of that with a wide beam) give the standard deviation of
each ray's line integral; ours follows from the same line integrals, with the protocol's photons for
every ray, and again with the photons that XCIST's ray has in air. A few whole scans give that of
the image, by our FBP.

Each row goes to stderr as it is done. Prints one line of JSON.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ellipses import Ellipse, image, line_integrals
from numpy.typing import NDArray
from rounding import rounded
from xcist_scanner import BONE, PROTOCOL, SHAPES, Physics, Xcist, mu_per_mm

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, mu_to_hu
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS, add_noise
from physfed_ray.ct.operator import FanBeam

SIZE = 256
STANDING_VIEWS = (0, 83, 190, 301)
REGIONS = {"centre": (0.0, 0.0, 12.0), "edge": (0.0, 82.0, 12.0)}
"""Middle and radius of the regions of the image, all of them water; mm."""
WIDE_ROWS = 32


def cases(kev: float) -> dict[str, Physics]:
    """Return each physics with what it adds to the spectrum."""
    blur = {"physics.crosstalkCallback": "CalcCrossTalk", "physics.col_crosstalk": 0.025}
    blur |= {"physics.row_crosstalk": 0.0}
    optical = {
        "physics.opticalCrosstalkCallback": "CalcOptCrossTalk",
        "physics.col_crosstalk_opt": 0.04,
        "physics.row_crosstalk_opt": 0.0,
    }
    samples = {"scanner.focalspotShape": "Uniform", "scanner.focalspotWidth": 1.0}
    samples |= {"physics.srcXSampleCount": 3, "physics.colSampleCount": 3}
    scatter = {"physics.scatterCallback": "Scatter_ConvolutionModel"}
    return {
        "one energy": Physics(kev, images=True),
        "spectrum": Physics(images=True),
        "spectrum, focal spot and whole bins": Physics(extra=samples),
        "spectrum, X-ray crosstalk": Physics(extra=blur),
        "spectrum, optical crosstalk": Physics(images=True, extra=optical),
        "spectrum, wide beam": Physics(rows=WIDE_ROWS),
        "spectrum, wide beam, scatter": Physics(rows=WIDE_ROWS, extra=scatter),
        "spectrum, bowtie": Physics(images=True, extra={"protocol.bowtie": "medium.txt"}),
    }


def water_kev() -> float:
    """Return the energy at which XCIST's water attenuates as ours does."""
    from scipy.optimize import brentq

    return float(brentq(lambda kev: mu_per_mm("water", kev) - MU_WATER_PER_MM, 50, 100))


def ellipses_at(kev: float) -> list[Ellipse]:
    """Return the object as ellipses that add up, attenuation per mm."""
    water = mu_per_mm("water", kev)
    inserts = [shape.scaled(1, mu_per_mm(material, kev) - water) for material, shape in SHAPES[1:]]
    return [SHAPES[0][1].scaled(1, water), *inserts]


def model_std(p: NDArray[np.float64], photons: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return the standard deviation that ``ct.noise`` gives a line integral, to first order."""
    counts = photons * np.exp(-p)
    return np.sqrt(counts + ELECTRONIC_NOISE_COUNTS**2) / counts


def compare(
    physics: Physics,
    kev: float,
    repeats: int,
    scans: int,
    seed: int,
    reference: NDArray[np.float64] | None,
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return how far XCIST is from this package under one physics.

    Args:
        physics: What XCIST models.
        kev: Energy at which our object is taken.
        repeats: Noisy readings of each standing view.
        scans: Whole scans.
        seed: Of the noise.
        reference: Line integrals of another physics to compare with, as returned.

    Returns:
        What was found, and the line integrals of the standing views without noise.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        xcist = Xcist(physics, Path(folder), seed)
        views = list(STANDING_VIEWS)
        clean = np.stack([xcist.logarithm(xcist.standing(v, 1, noisy=False))[0] for v in views])
        noisy = np.stack([xcist.logarithm(xcist.standing(v, repeats, noisy=True)) for v in views])
        row: dict[str, Any] = {
            "mas_per_view": xcist.mas_per_view,
            "mean_kev": xcist.mean_kev,
            "swank_factor_in_air": xcist.swank,
            "photons_of_the_outermost_bin": float(xcist.air[0]),
            "largest_line_integral": float(clean.max()),
            **compare_line_integrals(clean, views, kev),
            **compare_noise(noisy, clean, xcist.air),
        }
        if reference is not None:
            row["line_integrals_rms_from_spectrum"] = relative_rms(clean, reference)
            if "physics.scatterCallback" in physics.extra:
                row["scatter_over_primary_at_most"] = float(np.expm1(reference - clean).max())
        if scans and physics.images:
            row["image"] = compare_images(xcist, scans, seed)
    row["seconds"] = time.perf_counter() - start
    return row, clean


def compare_line_integrals(
    clean: NDArray[np.float64], views: list[int], kev: float
) -> dict[str, float]:
    """Return how far XCIST's noiseless line integrals are from the exact ones, and from ours."""
    grid = torch.from_numpy(image(ellipses_at(kev), PROTOCOL, SIZE))[None, None]
    ours = FanBeam(PROTOCOL, SIZE).project(grid)[0, 0].numpy()[views]
    exact = line_integrals(ellipses_at(kev), PROTOCOL)[views]
    return {
        "line_integrals_rms_from_exact": relative_rms(clean, exact),
        "line_integrals_rms_from_our_projector": relative_rms(clean, ours),
    }


def compare_noise(
    noisy: NDArray[np.float64], clean: NDArray[np.float64], air: NDArray[np.float64]
) -> dict[str, Any]:
    """Return XCIST's standard deviations of line integrals over ours, and their correlation.

    Args:
        noisy: (views, repeats, bins).
        clean: (views, bins).
        air: Photons of XCIST's bins without an object, (bins,).
    """
    spread = noisy.std(axis=1, ddof=1)
    rest = noisy - noisy.mean(axis=1, keepdims=True)
    products = (rest[..., 1:] * rest[..., :-1]).mean(axis=1)
    correlation = products / (spread[:, 1:] * spread[:, :-1])
    return {
        "std_xcist_over_ours": ratios(spread, clean, PROTOCOL.photons),
        "std_xcist_over_ours_with_its_own_air": ratios(spread, clean, air),
        "correlation_of_neighbours": float(correlation.mean()),
    }


def compare_images(xcist: Xcist, scans: int, seed: int) -> dict[str, Any]:
    """Return the noise of images from both, from line integrals without noise in common."""
    clean = xcist.logarithm(xcist.turning(noisy=False))
    theirs = np.stack([xcist.logarithm(xcist.turning(noisy=True)) for _ in range(scans)])
    ours = [
        add_noise(clean, PROTOCOL.photons, np.random.default_rng([seed, i])) for i in range(scans)
    ]
    noise = {
        name: reconstruct(np.asarray(sinograms) - clean).std(axis=0, ddof=1)
        for name, sinograms in (("xcist", theirs), ("ours", ours))
    }
    pixel_mm, centre = PROTOCOL.pixel_at(SIZE), np.arange(SIZE) - (SIZE - 1) / 2
    found: dict[str, Any] = {}
    for region, (x, y, radius) in REGIONS.items():
        inside = np.hypot(centre * pixel_mm - x, -centre[:, None] * pixel_mm - y) < radius
        std = {name: float(np.sqrt((values[inside] ** 2).mean())) for name, values in noise.items()}
        found[region] = {
            **{f"std_hu_{name}": value for name, value in std.items()},
            "xcist_over_ours": std["xcist"] / std["ours"],
        }
    return found


def reconstruct(sinograms: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return our FBP of line integrals, HU less that of air."""
    mu = fbp(torch.from_numpy(np.asarray(sinograms, np.float32)), PROTOCOL, SIZE).numpy()
    return mu_to_hu(mu).astype(np.float64) - float(mu_to_hu(np.zeros(1))[0])


def ratios(
    spread: NDArray[np.float64], p: NDArray[np.float64], photons: NDArray[np.float64] | float
) -> dict[str, float]:
    """Return XCIST's standard deviation over ours: of all rays, and by line integral."""
    ratio = spread / model_std(p, photons)
    low, middle, high = np.quantile(ratio, (0.05, 0.5, 0.95))
    found = {"median": middle, "5%": low, "95%": high, "rms": math.sqrt((ratio**2).mean())}
    for first in range(math.ceil(p.max())):
        here = (p >= first) & (p < first + 1) & ((p > 1e-6) | (first > 0))
        if here.sum() >= 10:
            found[f"p {first}-{first + 1}"] = math.sqrt((ratio[here] ** 2).mean())
    return {name: float(value) for name, value in found.items()}


def relative_rms(found: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return the RMS of the difference over the RMS of what is right."""
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


def main() -> None:
    """Compare both under every physics and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200, help="readings of a standing view")
    parser.add_argument("--scans", type=int, default=8, help="whole scans, for the image")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kev = water_kev()
    rows, reference = {}, None
    for name, physics in cases(kev).items():
        repeats = options.repeats if physics.rows == 1 else options.repeats // 8
        rows[name], clean = compare(physics, kev, repeats, options.scans, options.seed, reference)
        reference = clean if name == "spectrum" else reference
        print(name, json.dumps(rounded(rows[name])), file=sys.stderr, flush=True)
    result = {
        "benchmark": "xcist",
        "kev": kev,
        "mu_bone_per_mm": mu_per_mm(BONE, kev),
        "repeats": options.repeats * len(STANDING_VIEWS),
        "scans": options.scans,
        "seed": options.seed,
        "cases": rows,
    }
    print(json.dumps(rounded(result)))


if __name__ == "__main__":
    main()

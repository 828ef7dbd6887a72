"""The scanner beside ASTRA, ODL and diffct: seconds a slice on one core, and errors.

The others need an environment of their own, where this package need not be installed:

    python3.11 -m venv /path/to/peers
    /path/to/peers/bin/pip install torch==2.13.0 astra-toolbox==2.5.0 odl==1.0.0 diffct==2.5.0 \
        numpy scipy
    PYTHONPATH=. /path/to/peers/bin/python benchmarks/scan.py

Every side runs in this one process on one thread, in turn. Times are CPU seconds per slice, the
least of the repeats, for batches of 1 and of 16 slices. ASTRA, and ODL on top of it, take one slice
at a time, whatever the batch; so does diffct's FBP. diffct projects in torch on a CPU and makes its
rays anew in every call, a block at a time; it is given every eighth view, once, and its time is
multiplied by eight.

The object is the head phantom, ellipses in [0, 1]. A projector gets each pixel's mean over the
ellipses, and its error is that against the exact line integrals, relative RMS: mostly the grid's
own. An FBP gets the exact line integrals, and its PSNR is that of the image against the pixels'
means, inside the circle that every protocol sees.

Each protocol's row goes to stderr as it is done. Scans (projection, noise, FBP) then run in one
process per core (``--cores 0``: no such runs). Prints one line of JSON.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from ellipses import SHEPP_LOGAN, image, line_integrals
from numpy.typing import NDArray
from rounding import rounded
from torch import Tensor

from physfed_ray.ct import projection
from physfed_ray.ct.attenuation import MU_WATER_PER_MM, inscribed_circle, mu_to_hu
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import Protocol, select_presets
from physfed_ray.ct.scan import scan

BATCHES = (1, 16)
DIFFCT_VIEWS = 8
"""diffct projects every so manieth view."""

Calls = dict[str, Callable[[], object]]


def main() -> None:
    """Measure every chosen protocol and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocols", default="*", help="pattern over preset names")
    parser.add_argument("--size", type=int, default=256, help="pixels along a side")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="0: no scans in parallel")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # read when the libraries load, so start again
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    torch.set_num_threads(1)
    import astra
    import diffct
    import odl

    protocols = select_presets(options.protocols)
    rows = {}
    for name, protocol in protocols.items():
        rows[name] = beside_the_others(protocol, options.size, options.repeats)
        print(name, json.dumps(rounded(rows[name])), file=sys.stderr, flush=True)
    for name, rate in slices_per_second(protocols, options.size, options.cores).items():
        rows[name]["scan_slices_per_s"] = rate
    libraries = {"torch": torch, "astra": astra, "odl": odl, "diffct": diffct}
    result = {
        "benchmark": "scan",
        "size": options.size,
        "repeats": options.repeats,
        "cores": options.cores,
        "versions": {name: library.__version__ for name, library in libraries.items()},
        "worst": {
            key: min(row[key] for row in rows.values())
            for key in next(iter(rows.values()))
            if "_over_" in key or "_minus_" in key
        },
        "protocols": rows,
    }
    print(json.dumps(rounded(result)))


def beside_the_others(protocol: Protocol, size: int, repeats: int) -> dict[str, float]:
    """Return seconds, errors and ratios of all libraries under one protocol."""
    ellipses = [e.scaled(protocol.field_radius_mm) for e in SHEPP_LOGAN]
    truth = image(ellipses, protocol, size).astype(np.float32)
    exact = line_integrals(ellipses, protocol).astype(np.float32)
    calls: Calls = {}
    row: dict[str, float] = {}
    for side in (_ours, _astra, _odl, _diffct):
        found, measured = side(protocol, truth, exact)
        calls |= found
        row |= measured
    for name, seconds in least_cpu_seconds(repeats, **calls).items():
        row[f"{name}_s"] = seconds / (int(name.rsplit("_", 1)[1]) if "_ours_" in name else 1)
    for batch in BATCHES:
        for map_, peer in (("project", "astra"), ("back_project", "astra"), ("fbp", "odl")):
            ratio = row[f"{map_}_{peer}_s"] / row[f"{map_}_ours_{batch}_s"]
            row[f"{map_}_{peer}_over_ours_{batch}"] = ratio
    row["project_error_astra_over_ours"] = row["project_error_astra"] / row["project_error_ours"]
    row["fbp_psnr_ours_minus_odl"] = row["fbp_psnr_ours"] - row["fbp_psnr_odl"]
    return row


Side = tuple[Calls, dict[str, float]]


def _ours(protocol: Protocol, truth: NDArray[np.float32], exact: NDArray[np.float32]) -> Side:
    """``ct.operator.FanBeam``, which shares its rays among the slices of a batch."""
    operator, calls = FanBeam(protocol, len(truth)), {}

    def add(batch: int) -> None:
        images = torch.from_numpy(truth).repeat(batch, 1, 1, 1)
        sinograms = torch.from_numpy(exact).repeat(batch, 1, 1, 1)
        calls[f"project_ours_{batch}"] = lambda: operator.project(images)
        calls[f"back_project_ours_{batch}"] = lambda: operator.back_project(sinograms)
        calls[f"fbp_ours_{batch}"] = lambda: operator.fbp(sinograms)

    for batch in BATCHES:
        add(batch)
    projected = operator.project(torch.from_numpy(truth)[None, None])[0, 0].numpy()
    reconstructed = operator.fbp(torch.from_numpy(exact)[None, None])[0, 0].numpy()
    return calls, {
        "project_error_ours": relative_rms(projected, exact),
        "fbp_psnr_ours": psnr(reconstructed, truth),
    }


def _astra(protocol: Protocol, truth: NDArray[np.float32], exact: NDArray[np.float32]) -> Side:
    """ASTRA's ``line_fanflat``."""
    calls: Calls = {
        "project_astra": lambda: projection.project(truth[None], protocol, cuda=False),
        "back_project_astra": lambda: projection.back_project(exact[None], protocol, len(truth)),
    }
    projected = projection.project(truth[None], protocol, cuda=False)[0]
    return calls, {"project_error_astra": relative_rms(projected, exact)}


def _odl(protocol: Protocol, truth: NDArray[np.float32], exact: NDArray[np.float32]) -> Side:
    """ODL on ASTRA's CPU backend; its images are indexed by x and y."""
    import odl
    from odl.applications import tomo

    radius, half_detector = protocol.field_radius_mm, protocol.bins * protocol.bin_mm / 2
    half_view = math.pi / protocol.views  # a partition's points are the middles of its cells
    geometry = tomo.FanBeamGeometry(
        odl.uniform_partition(-half_view, 2 * math.pi - half_view, protocol.views),
        odl.uniform_partition(-half_detector, half_detector, protocol.bins),
        src_radius=protocol.source_mm,
        det_radius=protocol.detector_mm,
    )
    space = odl.uniform_discr([-radius] * 2, [radius] * 2, truth.shape, dtype="float32")
    transform = tomo.RayTransform(space, geometry, impl="astra_cpu")
    reconstruct = tomo.fbp_op(transform, filter_type="Ram-Lak")
    object_ = space.element(np.ascontiguousarray(np.rot90(truth, -1)))
    sinogram = transform.range.element(exact)
    calls: Calls = {
        "project_odl": lambda: transform(object_),
        "fbp_odl": lambda: reconstruct(sinogram),
    }
    return calls, {
        "project_error_odl": relative_rms(transform(object_).asarray(), exact),
        "fbp_psnr_odl": psnr(np.rot90(reconstruct(sinogram).asarray()), truth),
    }


def _diffct(protocol: Protocol, truth: NDArray[np.float32], exact: NDArray[np.float32]) -> Side:
    """Diffct's portable backend; row 0 of its images has the smallest y."""
    import diffct

    few = replace(protocol, views=max(1, protocol.views // DIFFCT_VIEWS))
    size, pixel_mm = len(truth), protocol.pixel_at(len(truth))
    common = {"beam": "fan", "detector_spacing": protocol.bin_mm, "voxel_spacing": pixel_mm}
    common |= {"backend": "torch", "precision": "float32"}
    projector = diffct.Projector(_diffct_trajectory(few), (size, size), (protocol.bins,), **common)
    upwards = torch.from_numpy(np.ascontiguousarray(truth[::-1]))
    trajectory, angles = _diffct_trajectory(protocol), _angles(protocol)
    sinogram = torch.from_numpy(exact)

    def reconstruct() -> Tensor:
        return diffct.fbp(sinogram, trajectory, (size, size), angles, **common)

    row = {}
    for batch in BATCHES:
        images = upwards.repeat(batch, 1, 1)
        start = time.process_time()
        projected = projector.project(images)
        seconds = (time.process_time() - start) / batch
        row[f"project_diffct_{batch}_s"] = seconds * protocol.views / few.views
    few_exact = line_integrals([e.scaled(few.field_radius_mm) for e in SHEPP_LOGAN], few)
    row["project_error_diffct"] = relative_rms(projected[0].numpy(), few_exact)
    row["fbp_psnr_diffct"] = psnr(reconstruct().numpy()[::-1], truth)
    return {"fbp_diffct": reconstruct}, row


def _angles(protocol: Protocol) -> Tensor:
    return torch.arange(protocol.views, dtype=torch.float64) * (2 * math.pi / protocol.views)


def _diffct_trajectory(protocol: Protocol) -> tuple[Tensor, Tensor, Tensor]:
    """Return sources, detector middles and detector axes, (views, 2) each."""
    sin, cos = _angles(protocol).sin().float(), _angles(protocol).cos().float()
    outwards = torch.stack((sin, -cos), 1)
    axis = torch.stack((cos, sin), 1)
    return outwards * protocol.source_mm, outwards * -protocol.detector_mm, axis


def least_cpu_seconds(repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Return the least CPU time of each call, run in turn; all have run before."""
    least = dict.fromkeys(calls, math.inf)
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - start)
    return least


def relative_rms(found: NDArray[Any], exact: NDArray[Any]) -> float:
    """Return the RMS of the difference over the RMS of what is right."""
    return float(np.linalg.norm(found.astype(float) - exact) / np.linalg.norm(exact))


def psnr(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the PSNR in dB for a data range of 1, inside the inscribed circle."""
    inside = inscribed_circle(len(truth))
    return float(-10 * np.log10(np.mean((image.astype(float) - truth)[inside] ** 2)))


def slices_per_second(protocols: dict[str, Protocol], size: int, cores: int) -> dict[str, float]:
    """Return how many slices all cores together scan in a second of wall time."""
    if not cores:
        return {}
    rates, batch = {}, max(BATCHES)
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        list(pool.map(scan_batch, [next(iter(protocols.values()))] * 2 * cores, [32] * 2 * cores))
        for name, protocol in protocols.items():
            start = time.perf_counter()
            list(pool.map(scan_batch, [protocol] * cores, [size] * cores))
            rates[name] = cores * batch / (time.perf_counter() - start)
    return rates


def scan_batch(protocol: Protocol, size: int) -> None:
    """Scan one batch of water disks on one core."""
    torch.set_num_threads(1)
    centre, batch = np.linspace(-1, 1, size), max(BATCHES)
    water = (np.hypot(centre[:, None], centre) < 0.8) * np.float32(MU_WATER_PER_MM)
    hu = np.repeat(mu_to_hu(water)[None], batch, 0)
    scan(hu, protocol, [np.random.default_rng(i) for i in range(batch)])


if __name__ == "__main__":
    main()

"""Scans beside ODL: projection and FBP per slice and core, and slices per second in parallel.

ODL needs an environment of its own, where this package need not be installed:

    python3.11 -m venv /path/to/odl_env
    /path/to/odl_env/bin/pip install torch==2.13.0 astra-toolbox==2.5.0 odl==1.0.0 numpy scipy
    PYTHONPATH=. /path/to/odl_env/bin/python benchmarks/scan.py

Both sides run in this one process on one thread, in turn, on the same noiseless Shepp-Logan phantom
in [0, 1]; times are CPU seconds per slice, the least of the repeats; ours of the FBP is for a
batch of 16. PSNR is of the noiseless reconstruction. Scans (projection, noise, FBP) then run
in one process per core. Prints one line of JSON.

``--operator`` times ``ct.operator.FanBeam`` beside ASTRA instead, and needs no ODL:

    python benchmarks/scan.py --operator --protocols 'paper-[12]' --size 128
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, inscribed_circle, mu_to_hu
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.projection import back_project, project
from physfed_ray.ct.protocol import Protocol, select_presets
from physfed_ray.ct.scan import scan

BATCH = 16
OPERATOR_BATCH = 8


def main() -> None:
    """Measure every chosen protocol and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocols", default="*", help="pattern over preset names")
    parser.add_argument("--size", type=int, default=256, help="pixels along a side")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--operator", action="store_true", help="FanBeam beside ASTRA, without ODL")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # read when the libraries load, so start again
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    torch.set_num_threads(1)

    protocols = select_presets(options.protocols)
    if options.operator:
        size, repeats = options.size, options.repeats
        result = {
            "benchmark": "operator",
            "size": size,
            "batch": OPERATOR_BATCH,
            "versions": {"torch": torch.__version__},
            "protocols": {n: operator_beside_astra(p, size, repeats) for n, p in protocols.items()},
        }
        print(json.dumps(_rounded(result)))
        return
    import odl

    rows = {n: beside_odl(p, options.size, options.repeats) for n, p in protocols.items()}
    for name, rate in slices_per_second(protocols, options.size, options.cores).items():
        rows[name]["scan_slices_per_s"] = rate
    result = {
        "benchmark": "scan",
        "size": options.size,
        "cores": options.cores,
        "versions": {"torch": torch.__version__, "odl": odl.__version__},
        "worst": {
            "projection_odl_over_ours": min(r["projection_odl_over_ours"] for r in rows.values()),
            "fbp_odl_over_ours": min(r["fbp_odl_over_ours"] for r in rows.values()),
            "psnr_ours_minus_odl": min(r["psnr_ours"] - r["psnr_odl"] for r in rows.values()),
        },
        "protocols": rows,
    }
    print(json.dumps(_rounded(result)))


def operator_beside_astra(protocol: Protocol, size: int, repeats: int) -> dict[str, float]:
    """Time A and A^T of both, CPU seconds per slice, and say how far A is apart on noise."""
    images = np.random.default_rng(0).random((OPERATOR_BATCH, size, size), dtype=np.float32)
    images *= inscribed_circle(size)
    operator, batch = FanBeam(protocol, size), torch.from_numpy(images)[:, None]
    theirs, ours = project(images[:1], protocol, cuda=False), operator.project(batch)
    seconds = least_cpu_seconds(
        repeats,
        project_ours=lambda: operator.project(batch),
        project_astra=lambda: project(images[:1], protocol, cuda=False),
        back_project_ours=lambda: operator.back_project(ours),
        back_project_astra=lambda: back_project(theirs, protocol, size),
    )
    seconds["project_ours"] /= OPERATOR_BATCH
    seconds["back_project_ours"] /= OPERATOR_BATCH
    ratios = {
        f"{map_}_astra_over_ours": seconds[f"{map_}_astra"] / seconds[f"{map_}_ours"]
        for map_ in ("project", "back_project")
    }
    difference = np.linalg.norm(ours[0, 0].numpy() - theirs[0]) / np.linalg.norm(theirs[0])
    times = {f"{name}_s": value for name, value in seconds.items()}
    return times | ratios | {"difference_on_noise": float(difference)}


def beside_odl(protocol: Protocol, size: int, repeats: int) -> dict[str, Any]:
    """Time both libraries on one protocol, in turn, and compare their reconstructions."""
    from odl.applications import tomo
    from odl.core.phantom import shepp_logan

    ray_transform = odl_ray_transform(protocol, size)
    phantom = shepp_logan(ray_transform.domain, modified=True)
    truth = from_odl(phantom.asarray())
    odl_fbp = tomo.fbp_op(ray_transform, filter_type="Ram-Lak")
    odl_sinogram, sinogram = ray_transform(phantom), project(truth[None], protocol, cuda=False)
    batch = torch.from_numpy(sinogram).repeat(BATCH, 1, 1)
    seconds = least_cpu_seconds(
        repeats,
        projection_ours=lambda: project(truth[None], protocol, cuda=False),
        projection_odl=lambda: ray_transform(phantom),
        fbp_ours=lambda: fbp(batch, protocol, size),
        fbp_odl=lambda: odl_fbp(odl_sinogram),
    )
    seconds["fbp_ours"] /= BATCH
    return {
        **{f"{name}_s": value for name, value in seconds.items()},
        "projection_odl_over_ours": seconds["projection_odl"] / seconds["projection_ours"],
        "fbp_odl_over_ours": seconds["fbp_odl"] / seconds["fbp_ours"],
        "psnr_ours": psnr(fbp(batch[:1], protocol, size)[0].numpy(), truth),
        "psnr_odl": psnr(from_odl(odl_fbp(odl_sinogram).asarray()), truth),
    }


def odl_ray_transform(protocol: Protocol, size: int) -> Any:
    """Return ODL's fan-beam projector of the same geometry, on ASTRA's CPU backend."""
    import odl
    from odl.applications import tomo

    radius, half_detector = protocol.field_radius_mm, protocol.bins * protocol.bin_mm / 2
    geometry = tomo.FanBeamGeometry(
        odl.uniform_partition(0, 2 * math.pi, protocol.views),
        odl.uniform_partition(-half_detector, half_detector, protocol.bins),
        src_radius=protocol.source_mm,
        det_radius=protocol.detector_mm,
    )
    space = odl.uniform_discr([-radius] * 2, [radius] * 2, [size] * 2, dtype="float32")
    return tomo.RayTransform(space, geometry, impl="astra_cpu")


def from_odl(image: NDArray[Any]) -> NDArray[np.float32]:
    """Turn an image indexed by x and y into one of rows from the top."""
    return np.ascontiguousarray(np.rot90(image), dtype=np.float32)


def least_cpu_seconds(repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Return the least CPU time of each call, run in turn after one unmeasured call."""
    least = dict.fromkeys(calls, math.inf)
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            elapsed = time.process_time() - start
            least[name] = min(least[name], elapsed) if repeat else math.inf
    return least


def psnr(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the PSNR in dB for a data range of 1."""
    return float(-10 * np.log10(np.mean((image.astype(float) - truth) ** 2)))


def slices_per_second(protocols: dict[str, Protocol], size: int, cores: int) -> dict[str, float]:
    """Return how many slices all cores together scan in a second of wall time."""
    rates = {}
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        list(pool.map(scan_batch, [next(iter(protocols.values()))] * 2 * cores, [32] * 2 * cores))
        for name, protocol in protocols.items():
            start = time.perf_counter()
            list(pool.map(scan_batch, [protocol] * cores, [size] * cores))
            rates[name] = cores * BATCH / (time.perf_counter() - start)
    return rates


def scan_batch(protocol: Protocol, size: int) -> None:
    """Scan one batch of water disks on one core."""
    torch.set_num_threads(1)
    centre = np.linspace(-1, 1, size)
    water = (np.hypot(centre[:, None], centre) < 0.8) * np.float32(MU_WATER_PER_MM)
    hu = np.repeat(mu_to_hu(water)[None], BATCH, 0)
    scan(hu, protocol, [np.random.default_rng(i) for i in range(BATCH)])


def _rounded(value: Any) -> Any:
    """Return the same structure with floats to four significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()

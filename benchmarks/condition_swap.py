"""Whether DA-Diff listens to its DA-CLIP: what happens in a finished run if it is told wrong.

    python benchmarks/condition_swap.py [--slices 6] runs/doses/runs/fedavg-da_diff-seed1 ...

For every scanner's test images, seen or not, under the model that serves it:

* ``other_dose``: e_d of the same slices under the scanner whose photons differ most;
* ``shuffled_dose``: e_d of a random slice of any scanner;
* ``other_anatomy``: e_a of the slice half-way through the test slices, mostly another region;
* ``told``: all slices told the e_d that they have under the scanner with the most photons, the
  middle one and that with the fewest, with the area of the noise power spectrum of what is left
  (HU^2) and the deviation of what is taken off (HU): if conditioning works, fewer photons told take
  off more.

A number of ``change_db`` is the PSNR so told less the PSNR as it is, mean over slices; ``noise`` in
it is the change with another start noise: what is not clearly beyond it says nothing. Prints one
JSON line a run.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import rounded, test_images
from torch import Tensor

from physfed_ray.data.prepare import prepare
from physfed_ray.data.store import ClientData
from physfed_ray.experiment import load_experiment
from physfed_ray.federation.client.training import autocast
from physfed_ray.metrics.base import Context
from physfed_ray.metrics.noise_power import NoiseArea
from physfed_ray.models.da_diff.backbone import DADiffDecoder
from physfed_ray.models.da_diff.perception import Perception
from physfed_ray.serving.trained import TrainedRun, load_run
from physfed_ray.window import denormalise

BATCH = 8
ANOTHER_NOISE = 1e-6
"""Added to all pixels it changes no image, but the bytes that the start noise follows from."""


@dataclass(frozen=True)
class Scanner:
    """A scanner's test slices, the network that serves it, and what it perceives."""

    name: str
    photons: float
    pixel_mm: float
    data: ClientData
    decoder: DADiffDecoder
    dose: Tensor
    anatomy: Tensor


def open_run(run: TrainedRun, run_dir: Path, slices: int | None) -> list[Scanner]:
    """Return the scanners of a run with test slices, the most photons first."""
    prepared = prepare(load_experiment(run_dir / "experiment.yaml"))
    found = []
    for client in (*prepared.clients, *prepared.unseen):
        if client.test is None:
            continue
        network = run.denoiser(client.id, device="cpu").network
        decoder, data = network.get_submodule("decoder"), test_images(client.test, slices)
        if not isinstance(decoder, DADiffDecoder) or not isinstance(decoder.perception, Perception):
            raise SystemExit(f"{run_dir} is no run of da_diff with an asset")
        dose, anatomy = decoder.perceive(torch.tensor(data.low)[:, None])
        pixel_mm = client.protocol.pixel_at(data.image_size)
        photons = client.protocol.photons
        found.append(Scanner(client.id, photons, pixel_mm, data, decoder, dose, anatomy))
    return sorted(found, key=lambda scanner: -scanner.photons)


def denoise(
    at: Scanner, dose: Tensor, anatomy: Tensor, precision: str, shift: float = 0.0
) -> np.ndarray:
    """Return the slices of a scanner denoised as they are told, (N, n, n) float32."""
    images = []
    low = torch.tensor(at.data.low)[:, None] + shift
    with torch.inference_mode(), autocast("cpu", precision):  # type: ignore[arg-type]
        for start in range(0, len(low), BATCH):
            rows = slice(start, start + BATCH)
            images.append(at.decoder.sample(low[rows], dose[rows], anatomy[rows])[-1])
    return np.asarray(torch.cat(images).squeeze(1).numpy())


def psnr(at: Scanner, images: np.ndarray) -> float:
    """Return the mean PSNR of a scanner's denoised slices in the experiment's window."""
    return float(np.mean(-10 * np.log10(np.mean((images - at.data.full) ** 2, axis=(1, 2)))))


def told(run: TrainedRun, at: Scanner, images: np.ndarray) -> dict[str, float]:
    """Return what is left of the noise, what was taken off, and the PSNR."""
    window = run.card.window_hu
    x, y = (denormalise(image, window) for image in (images, at.data.full))
    area = NoiseArea()(x, y, Context(window, at.data.body, at.pixel_mm))
    taken = (images - at.data.low)[at.data.body > 0].std() * (window[1] - window[0])
    return {
        "nps_area_hu2": rounded(float(np.nanmean(area))),
        "taken_off_hu": rounded(float(taken)),
        "psnr": rounded(psnr(at, images)),
    }


def inspect_scanner(run: TrainedRun, at: Scanner, scanners: list[Scanner]) -> dict[str, object]:
    """Return what each swap changes of a scanner's denoised slices."""
    precision, count = run.card.precision, len(at.data.low)
    own = psnr(at, denoise(at, at.dose, at.anatomy, precision))
    far = max(scanners, key=lambda other: abs(np.log(other.photons / at.photons)))
    every = torch.cat([scanner.dose for scanner in scanners])
    random = every[np.random.default_rng(1).integers(len(every), size=count)]
    swaps = {
        "other_dose": denoise(at, far.dose, at.anatomy, precision),
        "shuffled_dose": denoise(at, random, at.anatomy, precision),
        "other_anatomy": denoise(at, at.dose, at.anatomy.roll(count // 2, 0), precision),
        "noise": denoise(at, at.dose, at.anatomy, precision, ANOTHER_NOISE),
    }
    as_told = {
        other.name: told(run, at, denoise(at, other.dose, at.anatomy, precision))
        for other in scanners[:: max(1, (len(scanners) - 1) // 2)]
    }
    changes = {name: round(psnr(at, images) - own, 4) for name, images in swaps.items()}
    return {"photons": at.photons, "psnr": rounded(own), "change_db": changes, "told": as_told}


def inspect_run(run_dir: Path, slices: int | None) -> dict[str, object]:
    """Return what each swap changes, by scanner and on average over them."""
    run = load_run(run_dir)
    scanners = open_run(run, run_dir, slices)
    found = {at.name: inspect_scanner(run, at, scanners) for at in scanners}
    changes: list[dict[str, float]] = [one["change_db"] for one in found.values()]  # type: ignore
    mean = {key: round(float(np.mean([c[key] for c in changes])), 4) for key in changes[0]}
    return {
        "benchmark": "condition_swap", "run": run_dir.name, "mean_db": mean, "scanners": found
    }  # fmt: skip


def main() -> None:
    """Inspect the runs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slices", type=int, help="of each scanner, evenly spaced (default: all)")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for run_dir in options.runs:
        print(json.dumps(inspect_run(run_dir, options.slices)), flush=True)


if __name__ == "__main__":
    main()

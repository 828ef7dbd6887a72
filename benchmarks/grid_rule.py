"""On which grid a trained network should see a series: its own, or the run's (docs/denoise.md).

    python benchmarks/grid_rule.py RUN_DIR ../shared/ct --clients paper-1 paper-3 --sizes 256 512

Held-out patients are scanned by the product's own scanner at matrices of another size than the
run's, over the same field of view. Each client's own model denoises them by either rule, with
several margins around the frame. PSNR in the run's window over the whole image, and within the
body; mean over slices. Prints one JSON line.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation, default_object_scale
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import to_grid
from physfed_ray.seeds import generator
from physfed_ray.serving import own_grid
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.trained import load_run

PATIENTS = ("Lung_Dx-A0002", "A062055", "STS_044")


def scanned(source, denoiser: Denoiser, size: int, slices: int, seed: int):
    """Return low dose, full dose and body of held-out slices, each (N, size, size)."""
    simulation = Simulation(size, default_object_scale(size))
    low, full, body = [], [], []
    for patient in PATIENTS:
        volume = source.load(patient, slices)
        for row, (hu, mm) in enumerate(zip(volume.slices, volume.spacings_mm, strict=True)):
            grid = to_grid(hu, mm, size, "body", simulation.object_scale)
            rng = generator(seed, denoiser.choice.client, patient, row, "noise")
            paths = expect(grid.object[None], denoiser.protocol, simulation)
            noisy = measure(paths, denoiser.protocol, [rng], simulation)
            low.append(reconstruct(noisy, denoiser.protocol, simulation)[0])
            full.append(grid.image)
            body.append(grid.body)
    return np.stack(low), np.stack(full), np.stack(body)


def psnr(image, full, where, window) -> float:
    """Return the mean PSNR over slices within masks, dB."""
    low, high = window
    error = np.square(np.clip(image, low, high) - np.clip(full, low, high))
    return float(np.mean([10 * np.log10((high - low) ** 2 / e[w].mean())
                          for e, w in zip(error, where, strict=True)]))  # fmt: skip


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clients", nargs="+", default=["paper-1", "paper-2", "paper-3"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--margins", type=int, nargs="+", default=[own_grid.MARGIN_PIXELS])
    options = parser.parse_args()
    run, source = load_run(options.run), DicomSource(options.data)
    window, cases = run.card.window_hu, []
    for client in options.clients:
        denoiser = run.denoiser(client, threads=torch.get_num_threads())
        for size in options.sizes:
            low, full, body = scanned(source, denoiser, size, options.slices, options.seed)
            mm = denoiser.protocol.pixel_at(size)
            images = {"none": low}
            for margin in options.margins:
                own_grid.MARGIN_PIXELS = margin
                for rule in own_grid.RULES:
                    images[f"{rule} {margin}"] = denoiser(low, (mm, mm), rule=rule)
            everywhere = np.ones_like(body)
            cases += [
                {"client": client, "size": size, "rule": name,
                 "psnr": round(psnr(image, full, everywhere, window), 2),
                 "body": round(psnr(image, full, body, window), 2)}
                for name, image in images.items()
            ]  # fmt: skip
            print(cases[-len(images) :], flush=True)
    facts = {"run": options.run.name, "trained_at": run.card.image_size, "seed": options.seed}
    print(json.dumps({"benchmark": "grid_rule", **facts, "cases": cases}))


if __name__ == "__main__":
    main()

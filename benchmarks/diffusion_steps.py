"""How many steps a finished run of a diffusion network should take: the same weights, other steps.

    python benchmarks/diffusion_steps.py --steps 1 2 3 5 10 --slices 6 -- RUN_DIR ...

For every scanner's test images, seen or not, under the model that serves it, and for each number of
steps: PSNR, SSIM and FSIM in the experiment's window, and the area of the noise power spectrum of
what is left (HU^2), means over slices. Prints one JSON line a run.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import rounded, test_images

from physfed_ray.data.prepare import prepare
from physfed_ray.experiment import load_experiment
from physfed_ray.federation.client.training import autocast
from physfed_ray.metrics.base import Context
from physfed_ray.metrics.fsim import Fsim
from physfed_ray.metrics.noise_power import NoiseArea
from physfed_ray.metrics.pixelwise import Psnr, Ssim
from physfed_ray.models.base import DiffusionBackbone
from physfed_ray.models.registry import make_backbone
from physfed_ray.serving.trained import TrainedRun, load_run
from physfed_ray.window import denormalise

BATCH = 8
SCORES = {"psnr": Psnr(), "ssim": Ssim(), "fsim": Fsim(), "nps_area_hu2": NoiseArea()}


def sampler(run: TrainedRun, scanner: str, steps: int) -> torch.nn.Module:
    """Return the decoder that serves a scanner, taking so many steps."""
    denoiser = run.denoiser(scanner, device="cpu")
    backbone = denoiser.method.task.backbone
    if not isinstance(backbone, DiffusionBackbone):
        raise SystemExit(f"{backbone.title} is no diffusion network: name runs of one")
    keys = backbone.settings.model_dump() | {"steps": steps}
    decoder = make_backbone(backbone.name, **keys).decoder()
    decoder.load_state_dict(denoiser.network.get_submodule("decoder").state_dict())
    return decoder.eval()


def denoise(decoder: torch.nn.Module, low: np.ndarray, precision: str) -> np.ndarray:
    """Return low-dose slices (N, n, n) denoised, float32."""
    images = []
    with torch.inference_mode(), autocast("cpu", precision):  # type: ignore[arg-type]
        for start in range(0, len(low), BATCH):
            rows = torch.tensor(low[start : start + BATCH])[:, None]
            images.append(decoder(rows, ()).float().clamp(0, 1).squeeze(1))
    return np.asarray(torch.cat(images).numpy())


def inspect_run(run_dir: Path, steps: Sequence[int], slices: int | None) -> dict[str, object]:
    """Return the scores of each number of steps, by scanner and on average over them."""
    run = load_run(run_dir)
    prepared = prepare(load_experiment(run_dir / "experiment.yaml"))
    window, found = run.card.window_hu, dict[str, dict[int, dict[str, float]]]()
    for client in (*prepared.clients, *prepared.unseen):
        if client.test is None:
            continue
        data = test_images(client.test, slices)
        context = Context(window, data.body, client.protocol.pixel_at(data.image_size))
        full = denormalise(data.full, window)
        found[client.id] = {}
        for count in steps:
            images = denoise(sampler(run, client.id, count), data.low, run.card.precision)
            hu = denormalise(images, window)
            found[client.id][count] = {
                name: rounded(float(np.nanmean(score(hu, full, context))))
                for name, score in SCORES.items()
            }
    mean = {
        count: {name: rounded(float(np.mean([f[count][name] for f in found.values()])))
                for name in SCORES}
        for count in steps
    }  # fmt: skip
    return {"benchmark": "diffusion_steps", "run": run_dir.name, "mean": mean, "scanners": found}


def main() -> None:
    """Inspect the runs named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--slices", type=int, help="of each scanner, evenly spaced (default: all)")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for run_dir in options.runs:
        print(json.dumps(inspect_run(run_dir, options.steps, options.slices)), flush=True)


if __name__ == "__main__":
    main()

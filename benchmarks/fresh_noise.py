"""What fresh noise costs beside a training step: CPU seconds per training slice, on one thread.

Each protocol's line integrals are those of a phantom's middle slice. ``noise`` is drawn slice by
slice, and as many slices are reconstructed together as in a round. ``step`` is a slice's share of a
training step (forward, backward, Adam) of RED-CNN in float32, on whole images. Least of the
repeats, all in turn. Prints one JSON line.

    python benchmarks/fresh_noise.py --protocols 'paper-[12]' --sizes 128
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rounding import rounded
from torch.nn.functional import mse_loss

from physfed_ray.ct.protocol import Protocol, select_presets
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation, default_object_scale
from physfed_ray.data.grid import place
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.experiment import Training
from physfed_ray.federation.client.fresh import SLICES_AT_ONCE
from physfed_ray.federation.client.optimizer import FlatOptimizer
from physfed_ray.federation.flat import flat_network
from physfed_ray.methods.fedavg import FedAvg
from physfed_ray.methods.given import Task
from physfed_ray.models.registry import make_backbone

BATCH = 8


def main() -> None:
    """Measure all chosen protocols at all sizes and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocols", default="*", help="pattern over preset names")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="pixels a side")
    parser.add_argument("--channels", type=int, default=16, help="of RED-CNN")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # read when the libraries load, so start again
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "benchmark": "fresh_noise",
        "slices_at_once": SLICES_AT_ONCE,
        "batch": BATCH,
        "channels": options.channels,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "sizes": {},
    }
    for size in options.sizes:
        step = least(options.repeats, step=training_step(size, options.channels))["step"] / BATCH
        rows = {
            name: row(protocol, size, step, options.repeats)
            for name, protocol in select_presets(options.protocols).items()
        }
        result["sizes"][size] = {"step_s": step, "protocols": rows}
    print(json.dumps(rounded(result, 3)))


def row(protocol: Protocol, size: int, step: float, repeats: int) -> dict[str, float]:
    """Time a protocol's noise and FBP, seconds per slice."""
    simulation = Simulation(size, default_object_scale(size))
    volume = PhantomSource(1, 3, 1, simulation.object_size).load("phantom-00", None)
    grid = place(volume.slices[1], volume.spacings_mm[1], size, "body")
    hu = grid.resample(simulation.object_scale).object
    expected = expect(hu[None], protocol, simulation)
    rngs = [np.random.default_rng(k) for k in range(SLICES_AT_ONCE)]
    measured = measure(expected, protocol, rngs, simulation)
    seconds = least(
        repeats,
        noise=lambda: measure(expected, protocol, rngs, simulation),
        fbp=lambda: reconstruct(measured, protocol, simulation),
    )
    noise, fbp = (seconds[name] / SLICES_AT_ONCE for name in ("noise", "fbp"))
    return {
        "noise_s": noise,
        "fbp_s": fbp,
        "both_s": noise + fbp,
        "share_of_step": (noise + fbp) / step,
        "line_integrals_mb": 4e-6 * protocol.views * protocol.bins,
    }


def training_step(size: int, channels: int) -> Callable[[], object]:
    """Return what makes a training step of RED-CNN on random whole images."""
    task = Task(size, 1, 0.5, 0.25, 1, 8, (0.0,) * 8, (1.0,) * 8, make_backbone(channels=channels))
    network, states = flat_network(FedAvg(FedAvg.Settings(), task), 1, "cpu")
    optimizer = FlatOptimizer(Training(batch_size=BATCH), states, {})
    optimizer.learning_rate = 1e-3
    images = torch.rand(BATCH, 1, size, size).to(memory_format=torch.channels_last)
    encoder, decoder = network.get_submodule("encoder"), network.get_submodule("decoder")

    def step() -> None:
        features, skips = encoder(images)
        torch.autograd.backward(mse_loss(decoder(features, skips), images))
        optimizer.step()
        for flat in states:
            flat.gradient.zero_()

    return step


def least(repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Return the least CPU time of each call, in turn, after one call that is not measured."""
    seconds = dict.fromkeys(calls, math.inf)
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            took = time.process_time() - began
            seconds[name] = min(seconds[name], took) if repeat else math.inf
    return seconds


if __name__ == "__main__":
    main()

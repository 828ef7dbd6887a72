"""Memory and speed of denoising slices at their own matrix, by batch and precision.

    python benchmarks/denoise.py --batches 1 2 4 8 16

A RED-CNN of random weights denoises random slices of 512 x 512 pixels, each case in a process of
its own. ``slices_per_s`` is of one batch after one small warm-up, ``cpu_s_per_slice`` what the
threads took together, which busy neighbours change less; ``peak_mib`` is the largest
resident memory of the process, ``idle_mib`` what it was before the batch. ``load`` is the mean
number of processes that wanted a core in the minute before and after: above the number of cores,
others took part of the time. Prints one JSON line.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
import torch
from common import rounded, run_alone

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.device import device_words
from physfed_ray.federation.client.inference import Inference
from physfed_ray.federation.flat import flat_network
from physfed_ray.reports.base import Described
from physfed_ray.rundir.model import LocalTraining, ModelCard, NamedProtocol, Statistics
from physfed_ray.serving.choice import Choice
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.rebuild import rebuild

PROTOCOL = PRESETS["paper-3"]


def no_report(hu: np.ndarray) -> Described:
    """Stand for a reporter, which FedAvg does not ask."""
    raise NotImplementedError


def make_denoiser(channels: int, precision: str, threads: int) -> Denoiser:
    """Return the denoiser of a FedAvg run with random weights in every layer."""
    card = ModelCard.model_validate(
        {
            "method": {"name": "fedavg"},
            "backbone": {"name": "red_cnn", "channels": channels},
            "reports": {},
            "statistics": Statistics(0.3, 0.2, [0.0], [1.0], 1, 1),
            "image_size": 256,
            "window_hu": (-1000.0, 2000.0),
            "clients": (NamedProtocol(id="c1", protocol=PROTOCOL),),
            "seed": 1,
            "precision": precision,
            "training": LocalTraining(rounds=1),
        }
    )
    method = rebuild(card)
    network, _ = flat_network(method, 1, "cpu")
    for parameter in network.requires_grad_(False).get_submodule("decoder.layers.4").parameters():
        parameter.normal_(0, 0.01)
    inference = Inference(method, network.eval(), "cpu", card.precision)
    choice = Choice("shared", None, PROTOCOL.normalised(()))
    return Denoiser(card, inference, choice, PROTOCOL, no_report, threads)


def measure(
    batch: int, size: int, channels: int, precision: str, threads: int
) -> dict[str, object]:
    """Denoise one batch; call it in a process of its own."""
    denoiser = make_denoiser(channels, precision, threads)
    hu = np.random.default_rng(1).normal(40, 80, (batch, size, size)).astype(np.float32)
    denoiser(hu[:1, :64, :64], (0.7, 0.7))
    idle, load = resident_mib(), os.getloadavg()[0]
    began, used = time.perf_counter(), time.process_time()
    denoiser(hu, (0.7, 0.7), batch=batch)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    return {
        "batch": batch,
        "precision": precision,
        "slices_per_s": rounded(batch / seconds),
        "cpu_s_per_slice": rounded(used / batch),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "idle_mib": idle,
        "load": round((load + os.getloadavg()[0]) / 2, 1),
    }


def resident_mib() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20)


def main() -> None:
    """Measure each case and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    facts = {name: getattr(options, name) for name in ("size", "channels", "threads")}
    cases = [
        run_alone(measure, batch, options.size, options.channels, precision, options.threads)
        for precision in options.precisions
        for batch in options.batches
    ]
    about = {"benchmark": "denoise", "device": device_words("cpu"), **facts}
    print(json.dumps({**about, "cases": cases}))


if __name__ == "__main__":
    main()

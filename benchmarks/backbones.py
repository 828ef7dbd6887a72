"""Time a step of each backbone: contiguous or channels-last, float32 or bfloat16, compiled.

A step is forward and backward pass of encoder and decoder with a mean squared error; the optimiser,
which is the same for all, is left out. Ways take turns. With one thread the processor's seconds are
counted, which other jobs on the machine hardly disturb. Prints one JSON line.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.models.base import Backbone
from physfed_ray.models.registry import make_backbone


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=4, help="images in a step")
    parser.add_argument("--channels", type=int, default=96, help="feature channels of RED-CNN")
    parser.add_argument("--uformer", default="T", help="size of Uformer: T, S or B")
    parser.add_argument("--steps", type=int, default=7, help="steps of each way, after two more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    return parser.parse_args()


class Way:
    """One way of making a step.

    Args:
        backbone: The network.
        channels_last: Let the features be channels-last; the backbones ask for it by themselves.
        bf16: Compute in bfloat16 where autocast does.
        compiled: Compile encoder and decoder into one graph.
    """

    def __init__(
        self, backbone: Backbone, *, channels_last: bool, bf16: bool, compiled: bool
    ) -> None:
        torch.manual_seed(1)
        self.halves = nn.ModuleList((backbone.encoder(0.5, 0.25), backbone.decoder()))
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.bf16 = bf16
        self.denoise: Callable[[Tensor], Tensor] = self._denoise
        if compiled:
            self.denoise = torch.compile(self._denoise, dynamic=False)
        self.seconds: list[float] = []

    def _denoise(self, x: Tensor) -> Tensor:
        encoder, decoder = self.halves
        denoised: Tensor = decoder(*encoder(x))
        return denoised

    def step(self, x: Tensor, clock: Callable[[], float]) -> None:
        """Make a step and note its time."""
        began = clock()
        with (
            mock.patch.object(torch, "channels_last", self.layout),
            torch.autocast("cpu", torch.bfloat16, enabled=self.bf16),
        ):
            loss = functional.mse_loss(self.denoise(x).float(), torch.zeros_like(x))
        torch.autograd.backward(loss)
        self.halves.zero_grad()
        self.seconds.append(clock() - began)


def measure(backbone: Backbone, args: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of a step by the name of the way."""
    x = torch.rand(args.batch, 1, args.size, args.size)
    ways = {
        "contiguous": Way(backbone, channels_last=False, bf16=False, compiled=False),
        "channels_last": Way(backbone, channels_last=True, bf16=False, compiled=False),
        "channels_last_bf16": Way(backbone, channels_last=True, bf16=True, compiled=False),
    }
    if not args.no_compile:
        ways["compiled"] = Way(backbone, channels_last=True, bf16=False, compiled=True)
        ways["compiled_bf16"] = Way(backbone, channels_last=True, bf16=True, compiled=True)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    for _ in range(args.steps + 2):
        for way in ways.values():
            way.step(x, clock)
    return {name: statistics.median(way.seconds[2:]) for name, way in ways.items()}


def main() -> None:
    """Run the benchmark."""
    args = parse()
    torch.set_num_threads(args.threads)
    chosen = (
        make_backbone(channels=args.channels),
        make_backbone("uformer", size=args.uformer),
    )
    seconds = {backbone.label: measure(backbone, args) for backbone in chosen}
    result = {
        "benchmark": "backbones",
        "size": args.size,
        "batch": args.batch,
        "threads": args.threads,
        "cpu": platform.processor() or platform.machine(),
        "seconds": {
            name: {way: round(value, 3) for way, value in ways.items()}
            for name, ways in seconds.items()
        },
        "ratios": {
            name: {way: round(value / ways["contiguous"], 2) for way, value in ways.items()}
            for name, ways in seconds.items()
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

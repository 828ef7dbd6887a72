"""Time a SCAN-PhysFed training step beside the same step done the authors' way.

The authors' way: float32, contiguous images, and a second forward pass of the whole network, under
a random client's protocol, only for the orthogonal loss, with gradients through both passes; Adam
as it comes. Ours: bfloat16 autocast, channels-last, fused Adam, and no second pass, because what
the loss compares follows from features that the first one has computed.

Both train the same network from the same weights on the same batches with the same loss (the public
code's, without dropout, so that their curves can be compared), and take turns step by step. The
paper's variant is timed beside them for the first steps. Prints one JSON line.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.fields import Batch
from physfed_ray.methods.given import ClientInfo, RoundInput, Task
from physfed_ray.methods.scan_physfed import ScanPhysFed, ScanPhysFedSettings
from physfed_ray.methods.scan_physfed_public_code import by_protocol_relu, feature_cosine_loss
from physfed_ray.models.registry import make_backbone

DIM = 384
LIMIT = 0.45


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=4, help="images in a step")
    parser.add_argument("--channels", type=int, default=96, help="feature channels")
    parser.add_argument("--steps", type=int, default=50, help="steps of both ways")
    parser.add_argument("--paper-steps", type=int, default=5, help="steps of the paper's variant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def batches(args: argparse.Namespace) -> Iterator[Batch]:
    """Yield noisy images of random smooth bodies, (batch, 1, size, size), for ever."""
    rng = torch.Generator().manual_seed(0)
    g = torch.from_numpy(PRESETS["paper-1"].normalised()).expand(args.batch, -1)
    while True:
        coarse = torch.rand(args.batch, 1, 8, 8, generator=rng)
        full = functional.interpolate(coarse, (args.size, args.size), mode="bicubic").clamp(0, 1)
        low = (full + 0.05 * torch.randn(full.shape, generator=rng)).clamp(0, 1)
        embedding = torch.randn(args.batch, 1, DIM, generator=rng)
        mask = torch.ones(args.batch, 1, dtype=torch.bool)
        origin = torch.zeros(args.batch, 2, dtype=torch.int64)
        yield Batch(low, full, g, embedding, mask, origin, args.size)


class Way:
    """A network, its optimiser, and one way of making a step.

    Args:
        args: The command line.
        variant: Variant of SCAN-PhysFed.
        fast: Ours; otherwise the authors' way.
    """

    def __init__(self, args: argparse.Namespace, variant: str, fast: bool) -> None:
        zeros, ones = (0.0,) * DIM, (1.0,) * DIM
        backbone = make_backbone(channels=args.channels)
        task = Task(args.size, 8, 0.5, 0.25, 1, DIM, zeros, ones, backbone)
        self.method = ScanPhysFed(ScanPhysFedSettings(variant=variant, dropout=0.0), task)
        self.network = self.method.build(1)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, fused=fast or None)
        names = [name for name in PRESETS if name.startswith("paper-")]
        self.protocols = torch.stack([torch.from_numpy(PRESETS[n].normalised()) for n in names])
        self.step = self._fast if fast else self._authors
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def run(self, batch: Batch, number: int) -> None:
        """Make a step and note its time and its mean squared error."""
        torch.manual_seed(number)
        began = time.perf_counter()
        loss, mse = self.step(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(mse.item())
        self.seconds.append(time.perf_counter() - began)

    def _fast(self, batch: Batch) -> tuple[Tensor, Tensor]:
        codes = self.method.codes(self.network, self.protocols)
        assert codes is not None
        client = ClientInfo(0, "c1", PRESETS["paper-1"], 1)
        given = RoundInput(1, client, codes[0].numpy(), {"codes": codes.numpy()})
        with torch.autocast("cpu", torch.bfloat16):
            state = self.method.begin(self.network, given)
            loss, parts = self.method.loss(self.network, batch, state)
        return loss, parts["mse"]

    def _authors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        drawn = torch.randint(len(self.protocols), (len(batch.low),))
        denoised, own = whole_pass(self.network, batch, batch.own_g)
        _, other = whole_pass(self.network, batch, self.protocols[drawn])
        mse, _ = self.method.reconstruction(denoised, batch)
        return mse + self.method.settings.tau * feature_cosine_loss(own, other), mse.detach()


def whole_pass(network: nn.Module, batch: Batch, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return the denoised images and the protocol's features, as in the public code.

    Args:
        network: SCAN-PhysFed's.
        batch: Whole images.
        g: Protocols, (1 or B, 7).
    """
    child: Callable[[str], Any] = network.get_submodule
    f, skips = child("encoder")(batch.low)
    p = by_protocol_relu(f, *child("protocol_hypernetwork")(g))
    m = child("anatomy_hypernetwork")(batch.embedding, batch.embedding_mask)
    m = functional.interpolate(m, f.shape[-2:], mode="bilinear")
    return child("decoder")(p * 0.9 + p * m * 0.1, skips), p


def main() -> None:
    """Run the benchmark."""
    args = parse()
    torch.set_num_threads(args.threads)
    authors, ours = Way(args, "public_code", False), Way(args, "public_code", True)
    paper = Way(args, "paper", True)
    for number, batch in zip(range(args.steps), batches(args), strict=False):
        for way in (authors, ours) if number % 2 else (ours, authors):
            way.run(batch, number)
        if number < args.paper_steps:
            paper.run(batch, number)
    slow, fast, papers = (statistics.median(w.seconds) for w in (authors, ours, paper))
    gaps = [abs(a - b) / a for a, b in zip(authors.losses, ours.losses, strict=True)]
    result = {
        "benchmark": "train_step",
        "size": args.size,
        "batch": args.batch,
        "channels": args.channels,
        "threads": args.threads,
        "cpu": platform.processor() or platform.machine(),
        "authors_s": round(slow, 3),
        "ours_s": round(fast, 3),
        "ours_paper_variant_s": round(papers, 3),
        "ratio": round(fast / slow, 3),
        "ratio_paper_variant": round(papers / slow, 3),
        "limit": LIMIT,
        "curve_gap_median": round(statistics.median(gaps), 4),
        "curve_gap_max": round(max(gaps), 4),
        "authors_mse": [float(f"{x:.4g}") for x in authors.losses],
        "ours_mse": [float(f"{x:.4g}") for x in ours.losses],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""A pool of reporters against the loop that anyone would write first.

    python benchmarks/reports.py                      # a tiny model on this machine's CPUs
    python benchmarks/reports.py --width 2048 --layers 24 --dtype bf16   # 1.4 B, for a GPU

Both describe the same slices with the same LLaVA of random weights (every report has exactly
``--tokens`` tokens) and embed them with MiniLM. The loop takes one image, one ``generate`` and one
``encode`` at a time, in a process of its own with its default threads, after the model is loaded.
``running_s`` is the time of a pool that runs already, as the loop's model is loaded already
(``ReportService``); ``pool_s`` is what ``physfed prepare`` uses on Ray, from nothing: its time has
the start of the processes in it. Also checks how many texts agree, which is all of them in fp32.
Prints one JSON line.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import rounded, run_alone, start_ray

from physfed_ray.cost.machines import MACHINES
from physfed_ray.data.description import Slice, read_slices
from physfed_ray.data.grid import to_grid
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.data.scanning import image_hash
from physfed_ray.data.store import Scans, write_scans
from physfed_ray.experiment import Reports
from tests.reports.tiny_models import make_tiny_llava

IMAGE_TOKENS = 17
"""Of a slice, with its end; the prompt is a little longer than this."""


def write_slices(folder: Path, count: int, size: int) -> list[Slice]:
    """Return phantoms' slices that lie in a file as scans do."""
    source = PhantomSource(1, count, seed=1)
    volume = source.load(source.ids()[0], None)
    grids = [
        to_grid(hu, spacing, size, "body")
        for hu, spacing in zip(volume.slices, volume.spacings_mm, strict=True)
    ]
    hu = np.stack([grid.image for grid in grids]).round().clip(-1024, 3071).astype(np.int16)
    images = [image_hash(image) for image in hu]
    unused = np.zeros((count, 1, 1), np.float32)
    indices = np.arange(count, dtype=np.int32)
    file = folder / "scans.arrow"
    body = unused.astype(np.uint8)
    write_scans(
        file, Scans(unused, unused, body, hu, ["p"] * count, indices, unused[:, 0, 0], images)
    )
    return [Slice(image, file, row) for row, image in enumerate(images)]


def run_loop(reports: Reports, slices: list[Slice]) -> tuple[float, list[str]]:
    """Return the seconds of one slice at a time, after the model is loaded, and the texts."""
    describer = reports.make()
    reporter, encoder = describer.reporter, describer.encoder
    images = read_slices(slices)
    encoder.encode(reporter.report(images[:1]))
    began = time.monotonic()
    texts = []
    for image in images:
        (text,) = reporter.report(image[None])
        encoder.encode([text])
        texts.append(text)
    return time.monotonic() - began, texts


def run_pool(reports: Reports, slices: list[Slice]) -> tuple[float, list[str]]:
    """Return the seconds of the pool, its start included, and the texts."""
    from physfed_ray.runtime.reports import describe_on_ray

    start_ray()
    began = time.monotonic()
    texts: dict[str, str] = {}
    for batch in describe_on_ray(reports, slices):
        texts |= dict(zip(batch.images, batch.described.report, strict=True))
    return time.monotonic() - began, [texts[s.image] for s in slices]


def run_running_pool(reports: Reports, slices: list[Slice]) -> tuple[float, list[str]]:
    """Return the seconds of a pool that runs already, and the texts."""
    from physfed_ray.runtime.report_service import ReportService

    start_ray()
    images = read_slices(slices)
    pool = reports.pool
    with ReportService(reports) as service:
        service.describe(images[: 2 * pool.max_batch * pool.min_size])  # every model is loaded
        began = time.monotonic()
        described = service.describe(images)
        return time.monotonic() - began, described.report


def make_model(folder: Path, options: argparse.Namespace) -> int:
    """Save a model whose reports do not end early; return its number of parameters."""
    make_tiny_llava(folder, options.width, options.layers)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text()) | {"eos_token_id": None}
    file.write_text(json.dumps(settings))
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return weights // 4


def peak_flops(name: str) -> float | None:
    """Return a GPU's peak in bf16, FLOP/s; None if it is not known."""
    known = {machine.gpu.split()[0]: machine.bf16_tflops * 1e12 for machine in MACHINES}
    known["H200"] = known["H100"]
    return next((peak for gpu, peak in known.items() if gpu in name), None)


def on_gpu(numbers: dict[str, Any], parameters: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the share of the GPU's peak: 2 FLOP a parameter and token, generated or read."""
    if not torch.cuda.is_available():
        return {}
    name = torch.cuda.get_device_name()
    peak = peak_flops(name)
    tokens = options.slices * (options.tokens + IMAGE_TOKENS)
    flops = 2 * parameters * tokens / numbers["running_s"]
    return {"gpu": name, "share_of_peak": peak and rounded(flops / peak)}


def main() -> None:
    """Measure both and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=256)
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--tokens", type=int, default=64, help="of a report")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--reporters", type=int, default=2, help="that run from the start")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dtype", default="fp32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = make_model(folder / "model", options)
        reporter = {
            "name": "mllm",
            "model": str(folder / "model"),
            "max_new_tokens": options.tokens,
            "dtype": options.dtype,
        }
        reports = Reports.model_validate(
            {
                "reporter": reporter,
                "pool": {"max_batch": options.batch, "min_size": options.reporters},
            }
        )
        slices = write_slices(folder, options.slices, options.size)
        loop, texts = run_alone(run_loop, reports, slices)
        pool, other = run_alone(run_pool, reports, slices)
        running, third = run_alone(run_running_pool, reports, slices)
    tokens = options.slices * options.tokens
    numbers = {
        "benchmark": "reports",
        "parameters": parameters,
        **vars(options),
        "loop_s": rounded(loop),
        "pool_s": rounded(pool),
        "running_s": rounded(running),
        "speedup": rounded(loop / running),
        "speedup_with_start": rounded(loop / pool),
        "tokens_per_s": {"loop": rounded(tokens / loop), "running": rounded(tokens / running)},
        "same_texts": sum(a == b == c for a, b, c in zip(texts, other, third, strict=True)),
        "different_texts": len(set(texts)),
    }
    print(json.dumps(numbers | on_gpu(numbers, parameters, options)))


if __name__ == "__main__":
    main()

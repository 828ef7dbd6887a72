"""What SCAN-PhysFed's modulation does in a finished run: PSNR lost when a part of it is replaced.

    python benchmarks/modulation.py runs/real_ct/final/scan_physfed-seed1 ...

For every client's test images, under its own final model:

* ``other_code``: the code of the client whose code is least like its own;
* ``other_report``: the embeddings of the slices in reverse order, so that (nearly) every slice has
  the report of another one;
* ``flat_map``: the anatomy map replaced by its mean over the image;
* ``no_map``: the map replaced by 1;
* ``no_protocol``: alpha and beta replaced by 1 and 0;
* ``no_bottleneck``: the modulated features themselves replaced by 0, so that only the backbone's
  skips are left. Where this costs nothing, no modulation of these features can matter.

The decoder was trained with the real ones: a loss says that the part matters to this network, not
that a network trained without it would be worse. Prints one JSON line a run.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from physfed_ray.data.dataset import whole_batches
from physfed_ray.data.prepare import prepare
from physfed_ray.data.store import ClientData, read_client_data
from physfed_ray.experiment import load_experiment
from physfed_ray.methods.base import Method
from physfed_ray.serving.trained import load_run

BATCH = 8


@contextmanager
def replaced(module: object, name: str, function: Callable[..., object]) -> Iterator[None]:
    """Let a method of an object be another function for a while."""
    setattr(module, name, function)
    yield
    delattr(module, name)


def psnr(method: Method, network: nn.Module, data: ClientData, code: Tensor | None = None) -> float:
    """Return the mean PSNR over a client's test slices in the experiment's window."""
    errors = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for rows, batch in whole_batches(data, BATCH):
            image = method.denoise(network, batch, code).float().clamp(0, 1).squeeze(1).numpy()
            errors.append(np.mean((image - data.full[rows]) ** 2, axis=(1, 2)))
    return float(np.mean(-10 * np.log10(np.concatenate(errors))))


def losses(
    method: Method, network: nn.Module, data: ClientData, codes: Tensor, client: int
) -> dict[str, float]:
    """Return the PSNR of a client's model and what each replacement costs, in dB."""
    unit = torch.nn.functional.normalize(codes, dim=1)
    farthest = codes[int((unit @ unit[client]).argmin())]
    maps, protocol = (
        network.get_submodule(f"{name}_hypernetwork") for name in ("anatomy", "protocol")
    )
    real_map, real_head = maps.forward, protocol.head
    shuffled = replace(
        data,
        embedding=data.embedding[::-1].copy(),
        embedding_mask=data.embedding_mask[::-1].copy(),
    )
    own = psnr(method, network, data)
    found = {
        "other_code": own - psnr(method, network, data, farthest),
        "other_report": own - psnr(method, network, shuffled),
    }
    with replaced(maps, "forward", lambda f, m: _flat(real_map(f, m))):
        found["flat_map"] = own - psnr(method, network, data)
    with replaced(maps, "forward", lambda f, m: torch.ones_like(real_map(f, m))):
        found["no_map"] = own - psnr(method, network, data)
    with replaced(protocol, "head", lambda c: _identity(real_head(c))):
        found["no_protocol"] = own - psnr(method, network, data)
    real_features = method.features
    with replaced(method, "features", lambda n, b, c=None: _no_bottleneck(real_features(n, b, c))):
        found["no_bottleneck"] = own - psnr(method, network, data)
    return {"psnr": own, **found}


def _no_bottleneck(features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    f_per, *skips = features
    return torch.zeros_like(f_per), *skips


def _flat(m: Tensor) -> Tensor:
    return m.mean((2, 3), keepdim=True).expand_as(m)


def _identity(modulation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    alpha, beta = modulation
    return torch.ones_like(alpha), torch.zeros_like(beta)


def inspect_run(run_dir: Path) -> dict[str, object]:
    """Return the mean over clients of what each replacement costs."""
    run = load_run(run_dir)
    prepared = prepare(load_experiment(run_dir / "experiment.yaml"))
    rows = []
    for index, client in enumerate(prepared.clients):
        if run.codes is None or client.test is None:
            raise SystemExit(f"{run_dir} has no codebook or no test images")
        network, data = run.denoiser(client.id).network, read_client_data(client.test)
        rows.append(losses(run.method, network, data, torch.from_numpy(run.codes), index))
    mean = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
    return {"benchmark": "modulation", "run": run_dir.name, "mean_db": mean}


def main() -> None:
    """Inspect the runs named on the command line."""
    torch.set_num_threads(1)
    for run_dir in sys.argv[1:]:
        print(json.dumps(inspect_run(Path(run_dir))), flush=True)


if __name__ == "__main__":
    main()

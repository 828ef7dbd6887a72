"""Where steps run and how large, timing, and federations on random images to run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gpu_steps.clock import Clock
from gpu_steps.record import Record
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.store import ClientData, write_client_data
from physfed_ray.experiment import Training
from physfed_ray.federation.spec import ClientFiles, Spec
from physfed_ray.fields import Batch
from physfed_ray.methods.given import ClientInfo, Task
from physfed_ray.methods.registry import get_method
from physfed_ray.models.registry import make_backbone

DIM = 384
PROTOCOLS = [name for name in PRESETS if name.startswith("paper-")]


@dataclass(frozen=True)
class Setting:
    """Where a step runs.

    Attributes:
        out: Folder of everything that is written.
        device: ``cpu`` or ``cuda``.
        dry: Tiny sizes.
        clock: The step's own time.
        record: Where measurements go.
        data: The packed CT; None for phantoms.
    """

    out: Path
    device: str
    dry: bool
    clock: Clock
    record: Record
    data: Path | None

    def size(self, real: int, tiny: int) -> int:
        """Return the size of a real or of a dry run."""
        return tiny if self.dry else real

    def wait(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeat: int) -> float:
        """Return the seconds of a call, the mean of ``repeat`` that are queued at once."""
        work()
        self.wait()
        began = time.perf_counter()
        for _ in range(repeat):
            work()
        self.wait()
        return (time.perf_counter() - began) / repeat

    def task(self, size: int, channels: int, clients: int) -> Task:
        """Return the task of images of ``size`` pixels a side."""
        backbone = make_backbone(channels=channels)
        constants = (0.0,) * DIM, (1.0,) * DIM
        return Task(size, clients, 0.5, 0.25, 1, DIM, *constants, backbone)

    def batch(self, size: int, count: int, seed: int = 0) -> Batch:
        """Return a batch of random images on the device, channels-last."""
        data = random_data(size, count, seed)

        def there(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(self.device)

        def image(values: np.ndarray) -> Tensor:
            return there(values)[:, None].to(memory_format=torch.channels_last)

        mask = there(data.embedding_mask.astype(bool))
        origin = torch.zeros(count, 2, dtype=torch.int64, device=self.device)
        return Batch(
            image(data.low),
            image(data.full),
            there(data.g),
            there(data.embedding),
            mask,
            origin,
            size,
        )

    def federation(
        self,
        method: str,
        *,
        size: int,
        channels: int,
        clients: int,
        slices: int,
        precision: Literal["fp32", "bf16"] = "bf16",
        **training: Any,
    ) -> Spec:
        """Return a federation whose clients all train on the same random images.

        Args:
            method: Its name.
            size: Side of the images, pixels.
            channels: Of the backbone.
            clients: How many.
            slices: Of each.
            precision: Of training.
            training: Settings of training.
        """
        path = self.out / "random" / f"{size}-{slices}.arrow"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_client_data(path, random_data(size, slices))
        kind = get_method(method)
        infos = tuple(
            ClientInfo(i, f"c{i + 1}", PRESETS[PROTOCOLS[i % len(PROTOCOLS)]], slices)
            for i in range(clients)
        )
        return Spec(
            seed=1,
            method=kind(kind.Settings(), self.task(size, channels, clients)),
            training=Training(**{"threads": torch.get_num_threads(), **training}),
            precision=precision,
            clients=infos,
            files=(ClientFiles(path, path, path),) * clients,
            unseen=(),
            window_hu=(-1000.0, 2000.0),
            clinical_windows={},
            run_root=None,
            simulation=Simulation(size),
            device=self.device,
        )


def random_data(size: int, count: int, seed: int = 0) -> ClientData:
    """Return blocks of random grey with noise, ``count`` slices."""
    rng = np.random.default_rng(seed)
    full = np.kron(rng.uniform(0, 1, (count, 8, 8)), np.ones((size // 8, size // 8)))
    low = np.clip(full + rng.normal(0, 0.05, full.shape), 0, 1)
    return ClientData(
        low=low.astype(np.float32),
        full=full.astype(np.float32),
        body=np.ones(full.shape, np.uint8),
        embedding=rng.normal(size=(count, 1, DIM)).astype(np.float32),
        embedding_mask=np.ones((count, 1), np.uint8),
        g=np.tile(PRESETS["paper-1"].normalised(), (count, 1)),
        patient=["random"] * count,
        slice=np.arange(count, dtype=np.int32),
        scale=np.ones(count, np.float32),
        report=["A report."] * count,
    )

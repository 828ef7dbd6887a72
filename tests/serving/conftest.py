"""Small federations with a run directory, trained in this process on random images."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.data.prepare import Prepared, PreparedClient, Statistics
from physfed_ray.data.store import ClientData, write_client_data
from physfed_ray.experiment import Experiment
from physfed_ray.federation.serving import FinalResults, evaluate_all
from physfed_ray.rundir.model import write_card
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.model import model_card
from physfed_ray.runtime.run import make_spec
from physfed_ray.seeds import derive_seed
from tests.conftest import random_client_data, without_server
from tests.federation.test_rounds import Run

SIZE, DIM, SLICES = 32, 8, 9  # slices: more than a batch of an evaluation
STEPS = 2  # the first step reaches the last layer alone, which starts at zero
TRAINED, UNSEEN = ("paper-1", "paper-2"), ("unseen-2",)
SMALL = {
    "red_cnn": {"channels": 6},
    "uformer": {"size": "T", "channels": 4},
    "core_diff": {"channels": 4, "steps": 2},
    "da_diff": {"channels": 4},
    "scan_aware": {"channels": 6},
}


class Trained:
    """A federation that was trained, with its images and its own last evaluation.

    Args:
        experiment: What to run.
        folder: Receives the data in ``cache`` and the run in ``run``.
        settings: Keys under ``federation``.
    """

    def __init__(self, experiment: Experiment, folder: Path, **settings: Any) -> None:
        self.folder, self.root = folder, folder / "run"
        self.images: dict[str, ClientData] = {}
        self.further = experiment.further
        self.fields = experiment.backbone.make().fields
        clients = tuple(self._client(c.id, c.protocol, train=True) for c in experiment.clients)
        unseen = tuple(self._client(u.id, u.protocol, train=False) for u in experiment.unseen)
        constants = Statistics(0.5, 0.2, [0.1] * DIM, [0.9] * DIM, 1, DIM)
        self.prepared = Prepared(
            folder, SIZE, experiment.data.window_hu, clients, unseen, constants, {}
        )
        self.card = model_card(experiment, self.prepared, experiment.training.precision)
        spec = make_spec(experiment, self.prepared, self.card, str(self.root), "cpu")
        write_card(RunDirectory(self.root), self.card)
        self.run = Run(spec, **settings).go()
        self.results: FinalResults = evaluate_all(self.run.rounds)

    def _client(self, name: str, protocol: Protocol, *, train: bool) -> PreparedClient:
        files: dict[str, Path | None] = {"train": None, "validation": None, "test": None}
        for split, slices in (("train", STEPS), ("test", SLICES)) if train else (("test", SLICES),):
            data = random_client_data(derive_seed(name, split) % 1000, slices, SIZE, DIM)
            rng = np.random.default_rng(slices)
            data = replace(
                data,
                g=np.tile(protocol.normalised(self.further), (slices, 1)),
                extra={n: (data.low * rng.uniform(0.1, 0.9)) for n in self.fields},
            )
            path = self.folder / "cache" / f"{name}-{split}.arrow"
            write_client_data(path, data)
            files[split] = path
            if split == "test":
                self.images[name] = data
        slices = STEPS if train else SLICES
        return PreparedClient(name, protocol, **files, slices=slices, patients=1)

    def denoised(self, split: str, name: str) -> np.ndarray:
        """Return what ``examples.npz`` keeps of a run's last evaluation, one slice (n, n)."""
        return self.results.examples[f"{split}/{name}/denoised"]


def train_in(
    folder: Path,
    method: str,
    backbone: str = "red_cnn",
    *,
    rounds: int = 1,
    precision: str = "fp32",
    settings: Mapping[str, Any] | None = None,
    unseen: Mapping[str, Any] | None = None,
    **federation: Any,
) -> Trained:
    """Train a federation in a folder."""
    experiment = Experiment.model_validate(
        {
            "name": "tiny",
            "data": {"source": {"phantom": {"patients": 9}}, "image_size": SIZE},
            "clients": [{"id": f"c-{p}", "protocol": p} for p in TRAINED],
            "unseen": [
                {"id": name, "protocol": protocol}
                for name, protocol in (unseen or {name: name for name in UNSEEN}).items()
            ],
            "backbone": {"name": backbone, **SMALL[backbone]},
            "method": {"name": method, **without_server(method), **(settings or {})},
            "training": {"rounds": rounds, "batch_size": 1, "lr": 3e-3, "evaluate_every": 9,
                         "precision": precision},
        }
    )  # fmt: skip
    return Trained(experiment, folder, **federation)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Trained]:
    """Return ``train(method, backbone, rounds=1, settings={}, unseen={}, **federation)``."""
    return partial(train_in, tmp_path)


def in_hu(images: np.ndarray) -> np.ndarray:
    """Return normalised images in HU of the default window, exactly: float64 holds them."""
    return images.astype(np.float64) * 3000.0 - 1000.0


assert set(TRAINED) | set(UNSEEN) <= set(PRESETS)

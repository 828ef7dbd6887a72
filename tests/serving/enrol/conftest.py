"""Tiny runs on phantoms, trained in this process, and clients that join them."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.prepare import prepare
from physfed_ray.data.store import ClientData, read_client_data
from physfed_ray.experiment import Experiment
from physfed_ray.reports.base import Described
from physfed_ray.reports.describer import Describer
from physfed_ray.runtime.run import run_experiment
from physfed_ray.seeds import generator
from physfed_ray.serving.enrol.card import EnrolledCard
from physfed_ray.serving.enrol.patients import Dealing
from physfed_ray.serving.enrol.run import enrol
from physfed_ray.serving.enrol.wish import Wish
from physfed_ray.serving.trained import load_run
from tests.conftest import quick, without_server

SIZE = 32
SCANNERS = {name: quick(PRESETS[name], 20, 64) for name in ("paper-1", "paper-3", "unseen-2")}


def experiment(cache: Path, method: str, **keys: Any) -> Experiment:
    """Return an experiment of two clients that is run in half a second."""
    content: dict[str, Any] = {
        "name": "tiny",
        "data": {
            "source": {"phantom": {"patients": "auto", "slices": 2}},
            "image_size": SIZE,
            "object_scale": 1,
            "test_patients": 1,
            "validation_patients": 1,
            "cache": str(cache),
            **keys.pop("data", {}),
        },
        "clients": [
            {"id": f"c-{name}", "protocol": SCANNERS[name].values()}
            for name in ("paper-1", "paper-3")
        ],
        "backbone": {"channels": 4},
        "method": {"name": method, **without_server(method), **keys.pop("settings", {})},
        "training": {"rounds": 1, "batch_size": 1, "lr": 3e-3, **keys.pop("training", {})},
    }
    return Experiment.model_validate(content | keys)


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that all tests share."""
    return tmp_path_factory.mktemp("enrol-cache")


def _embed(_: Describer, reports: Sequence[str]) -> Described:
    vectors = [generator(text, "embedding").normal(size=(1, 8)) for text in reports]
    ones = np.ones((len(reports), 1), np.uint8)
    return Described(list(reports), np.stack(vectors).astype(np.float32), ones)


@pytest.fixture
def trained(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., "TinyRun"]:
    """Return ``trained(method, **keys)``, which runs an experiment and returns its directory.

    Reports are embedded without the language model, which would take longer than all the rest.
    """
    monkeypatch.setattr(Describer, "embed", _embed)
    monkeypatch.setenv("PHYSFED_CACHE", str(scans))
    monkeypatch.setenv("PHYSFED_SALT", "tests")

    def make(method: str, **keys: Any) -> TinyRun:
        root = tmp_path / method
        tiny = experiment(scans, method, **keys)
        run_experiment(tiny, root, runtime="inline", tested=False)
        return TinyRun(root, tiny)

    return make


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run directories that were made once, to be copied."""
    return {}


@pytest.fixture
def tiny(
    trained: Callable[..., "TinyRun"],
    kept: dict[str, Path],
    scans: Path,
    tmp_path: Path,
) -> "TinyRun":
    """A run of FedPer of the test's own."""
    root = tmp_path / "fedper"
    if "fedper" not in kept:
        kept["fedper"] = scans / "kept-run"
        shutil.copytree(trained("fedper").root, kept["fedper"])
    else:
        shutil.copytree(kept["fedper"], root)
    return TinyRun(root, experiment(scans, "fedper"))


class TinyRun:
    """A finished run.

    Args:
        root: Its directory.
        tiny: Its experiment.
    """

    def __init__(self, root: Path, tiny: Experiment) -> None:
        self.root, self.experiment = root, tiny
        self.protocol = root.parent / "scanner.yaml"
        numbers = SCANNERS["unseen-2"].values()
        self.protocol.write_text("".join(f"{key}: {value}\n" for key, value in numbers.items()))

    def enrol(self, *, phantoms: int = 4, **wish: Any) -> EnrolledCard:
        """Enrol a client of phantoms, with two rounds, all its patients at once."""
        seed = wish.pop("seed", 1)
        dealing = wish.pop("dealing", Dealing(None, phantoms, seed=seed))
        defaults: dict[str, Any] = {"rounds": 2, "curve": (), "device": "cpu", "name": "north"}
        told = wish.pop("on_event", lambda event: None)
        protocol = wish.pop("protocol", str(self.protocol))
        return enrol(self.root, Wish(protocol, dealing, **defaults | wish), told)

    def files(self) -> dict[str, str]:
        """Return the hash of every file of the run directory but those of enrolled clients."""
        return {
            str(path.relative_to(self.root)): sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.relative_to(self.root).parts[0] != "enrolled"
        }

    def test_data(self) -> ClientData:
        """Return the test slices of the first client."""
        file = prepare(self.experiment).clients[0].test
        assert file is not None
        return read_client_data(file)

    def denoised(self, name: str) -> np.ndarray:
        """Return the test slices as a client's model denoises them."""
        data = self.test_data()
        denoiser = load_run(self.root).denoiser(name, device="cpu")
        return denoiser.denoise(data.low, data.embedding, data.embedding_mask)


def means(card: EnrolledCard, split: str) -> Mapping[str, float]:
    """Return the test PSNR of each patient."""
    return next(result.scores["psnr"] for result in card.results if result.split == split)

"""Synthetic run directories: procedural images, real metrics, the layout of a real run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from physfed_ray.ct.protocol import Protocol, select_presets
from physfed_ray.metrics.scoring import score_slices
from physfed_ray.rundir.long_table import METRIC_COLUMNS, SLICE_COLUMNS, LongTable
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.seeds import generator
from physfed_ray.window import denormalise

WINDOW = (-1000.0, 2000.0)
CLINICAL = {"soft": (-160.0, 240.0), "lung": (-1350.0, 150.0)}
METHODS = {
    "local": ("Local", "personalised", ("mean_of_scores", "nearest_protocol", "ensemble")),
    "pooled": ("Pooled", "bound", ("shared",)),
    "fedavg": ("FedAvg", "generic", ("shared",)),
    "moon": ("MOON", "generic", ("shared",)),
    "fedper": (
        "FedPer",
        "personalised",
        ("mean_of_scores", "nearest_protocol", "ensemble", "oracle"),
    ),
    "scan_physfed": (
        "SCAN-PhysFed",
        "personalised",
        ("mean_of_scores", "nearest_protocol", "ensemble", "pvqs", "oracle"),
    ),
}
Images = NDArray[np.float32]
MakeRun = Callable[..., Path]
PutRun = Callable[..., Path]


def phantom_slices(count: int, n: int, rng: np.random.Generator) -> tuple[Images, NDArray[Any]]:
    """Return torso-like slices in [0, 1] of the window and their bodies."""
    yy, xx = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    slices, bodies = [], []
    for _ in range(count):
        a, b = rng.uniform(0.7, 0.85), rng.uniform(0.5, 0.65)
        body = (xx / a) ** 2 + (yy / b) ** 2 < 1
        hu = np.where(body, -90.0, -1000.0)
        hu[(xx / (a - 0.08)) ** 2 + (yy / (b - 0.08)) ** 2 < 1] = 45
        for side in (-1, 1):
            lung = ((xx - side * 0.35) / 0.2) ** 2 + ((yy + 0.05) / 0.32) ** 2 < 1
            hu[lung] = -820
        hu[(xx / 0.1) ** 2 + ((yy - 0.3) / 0.1) ** 2 < 1] = 700
        for _ in range(12):
            cx, cy, r = rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3), rng.uniform(0.02, 0.1)
            spot = (xx - cx) ** 2 + (yy - cy) ** 2 < r**2
            hu[spot & body] += rng.uniform(-60, 90)
        slices.append(gaussian_filter(hu, 0.6))
        bodies.append(body)
    scaled = (np.stack(slices) - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
    return np.clip(scaled, 0, 1).astype(np.float32), np.stack(bodies)


def _protocols(pattern: str, count: int) -> dict[str, Protocol]:
    """Return presets, and beyond their number more of them with ever more photons."""
    presets = list(select_presets(pattern).items())
    found = {}
    for k in range(count):
        name, protocol = presets[k % len(presets)]
        turn = k // len(presets)
        more = replace(protocol, photons=protocol.photons * 1.1**turn)
        found[f"{name}.{turn}" if turn else name] = more
    return found


class RunMaker:
    """Writes one run directory the way a finished run leaves it."""

    def __init__(self, root: Path, method: str, seed: int, **options: Any) -> None:
        self.directory = RunDirectory(root)
        self.method, self.seed = method, seed
        self.title, self.group, self.policies = METHODS[method]
        self.quality = options.get("quality", 0.6)
        self.rounds, self.n = options.get("rounds", 12), options.get("n", 64)
        self.settings = options.get("settings", {})
        self.data = options.get("data", {})
        self.count = options.get("slices", 4)
        self.backbone = options.get("backbone", "red_cnn")
        self.traffic = options.get("bytes_each_way", 5.9e7)
        self.finished = options.get("finished", True)
        self.stacked = options.get("stacked", True)
        self.lost = options.get("lost", ())
        self.clients = _protocols("paper-*", options.get("clients", 8))
        self.unseen = _protocols("unseen-*", options.get("unseen", 4))
        self.rows: list[tuple[Any, ...]] = []
        self.slices: list[tuple[Any, ...]] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self.full, self.body = phantom_slices(self.count, self.n, generator(seed, "images"))

    def write(self) -> None:
        """Write every file, as an earlier version did, so that tests may edit what they need."""
        self._write()
        for name in ("checksums.json", "checkpoints/experiment.yaml"):
            Path(self.directory.path(name)).unlink()

    def _write(self) -> None:
        for k, name in enumerate(self.clients):
            self._score(f"c{k + 1}", name, "test", self.quality, "test/input")
            self._curves(f"c{k + 1}", k)
        for name in self.unseen:
            for p, policy in enumerate(self.policies):
                quality = self.quality * (0.7 + 0.05 * p)
                self._score(name, name, f"unseen/{policy}", quality, "unseen/input")
        self._system()
        if self.method == "scan_physfed":
            self.rows.append((self.rounds, "server", "modulation", "alpha_client_std", 0.25))
        self.directory.write("experiment.yaml", yaml.safe_dump(self._experiment()).encode())
        self.directory.write_table("metrics.parquet", LongTable(METRIC_COLUMNS, self.rows))
        if not self.finished:
            return
        self.directory.write_table("slices.parquet", LongTable(SLICE_COLUMNS, self.slices))
        self.directory.write_arrays("examples.npz", self.arrays)
        codes = generator(self.seed, "codes").random((len(self.clients), 16)).astype(np.float32)
        if self.method == "scan_physfed":
            clients = np.array([f"c{k + 1}" for k in range(len(self.clients))])
            self.directory.write_arrays("codebook.npz", {"clients": clients, "codes": codes})
        self.directory.write("summary.json", json.dumps(self._summary()).encode())

    def _score(self, client: str, preset: str, split: str, quality: float, before: str) -> None:
        protocol = {**self.clients, **self.unseen}[preset]
        sigma = 0.004 + 4.0 / np.sqrt(protocol.photons)
        noise = generator(self.seed, preset, "noise").normal(0, sigma, self.full.shape)
        low = np.clip(self.full + gaussian_filter(noise, (0, 0.7, 0.7)) * 1.5, 0, 1)
        low = low.astype(np.float32)
        denoised = low + np.float32(quality) * (self.full - low)
        root = split.split("/")[0]
        for name, images in ((before, low), (split, denoised)):
            if name.endswith("input") and any(r[:2] == (client, name) for r in self.slices):
                continue
            scores = score_slices(images, self.full, self.body, WINDOW, CLINICAL)
            for metric, values in scores.items():
                self.rows.append((self.rounds, client, name, metric, float(np.mean(values))))
                self.slices += [
                    (client, name, f"patient{i % 2}", i, metric, float(v))
                    for i, v in enumerate(values)
                ]
        middle = self.count // 2
        prefix = split if split == root else f"{root}/input"
        if split == "test" and self.stacked:
            for kind, images in (("low", low), ("full", self.full), ("denoised", denoised)):
                hu = np.rint(denormalise(images[:2], WINDOW)).astype(np.int16)
                self.arrays[f"test/{client}/{kind}_slices"] = hu
        self.arrays |= {f"{prefix}/{client}/low": low[middle], f"{split}/{client}/denoised":
                        denoised[middle], f"{prefix}/{client}/full": self.full[middle]}  # fmt: skip

    def _curves(self, client: str, k: int) -> None:
        rng = generator(self.seed, client, "curves")
        for r in range(1, self.rounds + 1):
            loss = 2e-4 * np.exp(-r / 6) * (1 + 0.2 * k) + 4e-5 * (1 + 0.1 * rng.random())
            if (r, client) in self.lost:
                continue
            self.rows += [(r, client, "train", "loss", loss), (r, client, "train", "steps", 8.0)]
            psnr = 36 + k * 0.7 + self.quality * 8 * (1 - np.exp(-r / 5)) + 0.1 * rng.random()
            self.rows.append((r, client, "validation", "psnr", psnr))
            self.rows.append((r, client, "validation", "ssim", 0.9 + psnr / 1000))
            if self.method == "scan_physfed":
                for name, value in (("alpha_spread", 0.02 * r), ("map_spread", 0.01 * r)):
                    self.rows.append((r, client, "modulation", name, value))
        if self.method == "scan_physfed":
            self.rows.append((self.rounds, client, "modulation", "swap_psnr_drop", 0.1 * k))

    def _system(self) -> None:
        rng, log = generator(self.seed, "system"), []
        for r in range(1, self.rounds + 1):
            lost = [c for q, c in self.lost if q == r]
            system = {
                "seconds": 1.2 + 0.3 * rng.random(),
                "bytes_down": self.traffic,
                "bytes_up": self.traffic,
                "participants": 8.0 - len(lost),
                "missing": float(len(lost)),
            }
            self.rows += [(r, "server", "system", name, value) for name, value in system.items()]
            log.append({"event": "round", "round": r, "missing": dict.fromkeys(lost, "deadline")})
        text = "\n".join(["not json", *(json.dumps(entry) for entry in log)])
        self.directory.write("run.log", text.encode())

    def _experiment(self) -> dict[str, Any]:
        clients = [
            {"id": f"c{k + 1}", "protocol": asdict(p), "patients": None}
            for k, p in enumerate(self.clients.values())
        ]
        return {
            "name": "synthetic",
            "seed": self.seed,
            "data": {
                "source": {"dicom": "/data/private/ct", "min_slices": 1, "phantom": None},
                "image_size": self.n,
                "window_hu": list(WINDOW),
                "clinical_windows": {name: list(w) for name, w in CLINICAL.items()},
                "object_scale": None,
                "cache": "/data/private/cache",
            }
            | self.data,
            "clients": clients,
            "unseen": [{"id": k, "protocol": asdict(p)} for k, p in self.unseen.items()],
            "reports": {"reporter": "measured", "encoder": "minilm"},
            "backbone": {"name": self.backbone, "channels": 32},
            "method": {"name": self.method, **self.settings},
            "training": {"rounds": self.rounds, "lr": 1e-3, "precision": "bf16", "patch": 64},
            "federation": {"participation": 1.0},
            "provenance": {"versions": {"torch": "2.13.0"}, "git_commit": "0123abcd"},
        }

    def _summary(self) -> dict[str, Any]:
        pvqs = "pvqs" in self.policies
        return {
            "method": self.method,
            "title": self.title,
            "group": self.group,
            "seed": self.seed,
            "rounds": self.rounds,
            "wall_s": 15.0 + self.seed,
            "device": "CPU, 2 cores (synthetic)",
            "precision": "bf16",
            "parameters": {"shared": 1_850_000, "private": 910_000, "by_module": {"encoder": 9}},
            "bytes_per_round": {"down": self.traffic, "up": self.traffic},
            "data": {
                "source": {"patients": 12, "left_out": {"localizer": 3}},
                "splits": {
                    split: {f"c{k + 1}": counts for k in range(len(self.clients))}
                    for split, counts in (
                        ("train", {"patients": 1, "slices": 16}),
                        ("test", {"patients": 2, "slices": 32}),
                    )
                },
            },
            "clients": [
                {
                    "id": f"c{k + 1}",
                    "protocol": asdict(p),
                    "patients": 1,
                    "slices": 16,
                    "host": k % 2,
                }
                for k, p in enumerate(self.clients.values())
            ],
            "unseen": [
                {
                    "id": name,
                    "protocol": asdict(p),
                    "route": {"client": f"c{k + 1}", "cosine": 0.9 - 0.1 * k} if pvqs else None,
                    "nearest": f"c{k + 2}" if self.group == "personalised" else None,
                }
                for k, (name, p) in enumerate(self.unseen.items())
            ],
            "command": "/opt/venv/bin/physfed run /data/private/real.yaml --out /scratch/a",
        }


@pytest.fixture(scope="session")
def put_run(tmp_path_factory: pytest.TempPathFactory) -> PutRun:
    """Return a function that puts a run directory somewhere; each is made once and copied."""
    folder, known = tmp_path_factory.mktemp("made"), dict[str, Path]()

    def put(root: Path, method: str = "scan_physfed", seed: int = 1, **options: Any) -> Path:
        key = repr((method, seed, sorted(options.items())))
        if key not in known:
            made = folder / str(len(known))
            RunMaker(made, method, seed, **options).write()
            known[key] = made
        shutil.rmtree(root, ignore_errors=True)  # of an example before this one
        return Path(shutil.copytree(known[key], root))

    return put


@pytest.fixture
def make_run(tmp_path: Path, put_run: PutRun) -> MakeRun:
    """Return a function that writes a run directory and returns its path."""

    def make(method: str = "scan_physfed", seed: int = 1, **options: Any) -> Path:
        root = tmp_path / f"{method}-{options.pop('tag', '')}{seed}"
        return put_run(root, method, seed, **options)

    return make

"""Step 3: the paper's setting on real CT, one method after the other, as far as the time goes."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from gpu_steps.clock import Clock, OutOfTime
from gpu_steps.pack import PackSource
from gpu_steps.setting import PROTOCOLS, Setting
from physfed_ray.data.description import DescribedSlices, Slice, describe_slices
from physfed_ray.data.plan import PreparePlan
from physfed_ray.data.prepare import prepare
from physfed_ray.data.scanning import Outcome, do_shard
from physfed_ray.data.shards import Shard
from physfed_ray.errors import PhysFedError, sentence
from physfed_ray.events import Event
from physfed_ray.experiment import Experiment, Reports, load_experiment
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.run import run_experiment

METHODS = {
    "scan_physfed": 0.4,
    "fedavg": 0.25,
    "fedper": 0.3,
    "pooled": 0.4,
    "hyperfed": 0.5,
    "fedfdd": 1.0,
}
"""In the order of worth: the share that each may take of what the step has left."""
ROUNDS = 200
EVERY = 20
"""Rounds between two checkpoints; a run goes on in multiples of it."""
ALL = "all rounds"
SPLITS = (
    "test", "test/input", "unseen/shared", "unseen/pvqs", "unseen/nearest_protocol", "unseen/input"
)  # fmt: skip
"""What the page shows of a run; its own tables have more."""
WORKERS = 16
"""Threads that scan and describe; NumPy, SciPy and torch let others work meanwhile."""


@dataclass
class Progress:
    """What is seen of a run while it goes.

    Attributes:
        round: The last one that was finished.
        kept: The last one that has a checkpoint.
        every: Rounds between two checkpoints.
        seconds: Of each round that was seen.
    """

    every: int
    round: int = 0
    kept: int = 0
    seconds: list[float] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take note of an event of the run."""
        if event["event"] == "start":
            self.round = self.kept = event["from_round"]
        if event["event"] == "round":
            self.round = event["round"]
            self.seconds.append(event["seconds"])
            if self.round % self.every == 0 or self.round == event["rounds"]:
                self.kept = self.round


def run(setting: Setting) -> None:
    """Run the step."""
    source = PackSource(setting.data) if setting.data else None
    scan(setting, source)
    ended = {r["method"]: r["result"] for r in setting.record.rows if r.get("table") == "methods"}
    for method, share in list(METHODS.items())[: setting.size(len(METHODS), 2)]:
        if ended.get(method) == ALL:
            continue
        progress = Progress(checkpoint_every(setting))
        try:
            with setting.clock.limit(share * setting.clock.left()) as clock:
                told = train(setting, clock, progress, method, source)
        except OutOfTime:
            told = {"rounds": progress.kept, "result": "cut by the clock"}
        except Exception as error:
            told = {"rounds": progress.kept, "result": f"failed: {sentence(error)[:300]}"}
        setting.record.measured("paper", "methods", method=method, **told)
        ended[method] = told["result"]
    cut = [method for method, result in ended.items() if result.startswith("cut")]
    failed = [method for method, result in ended.items() if result.startswith("failed")]
    if failed:
        raise PhysFedError(f"{', '.join(failed)} failed, as the table of methods says")
    if cut:
        raise OutOfTime


def experiment(setting: Setting, method: str, rounds: int, source: PackSource | None) -> Experiment:
    """Return the experiment of a method, which also lies in the folder ``experiments``."""
    dry = setting.dry
    clients = [{"id": name, "protocol": name} for name in PROTOCOLS[: setting.size(8, 2)]]
    held: dict[str, Any] = {"test_patients": 1, "validation_patients": 1}
    images: dict[str, Any] = {"phantom": {"patients": "auto", "slices": setting.size(20, 2)}}
    if source is not None:
        images = {"dicom": str(setting.data)}
        if not dry:
            held = {f"{part}_patients": source.split[part] for part in ("test", "validation")}
            for client in clients:
                client["patients"] = source.split["clients"][client["id"]]
    content = {
        "name": f"gpu-{method}",
        "data": {
            "source": images,
            "image_size": setting.size(256, 32),
            "slices_per_patient": 2 if dry else None,
            "cache": str(setting.out.absolute() / "cache"),
            **held,
        },
        "clients": clients,
        "unseen": "unseen-1" if dry else "unseen-*",
        "reports": {"reporter": "measured", "encoder": "hashed"},
        "backbone": {"name": "red_cnn", "channels": setting.size(96, 2)},
        "method": {"name": method},
        "training": {
            "rounds": rounds,
            "batch_size": 20,
            "lr": 1e-3,
            "precision": "bf16",
            "threads": 1 if dry else min(8, os.cpu_count() or 1),
            "evaluate_every": ROUNDS,
        },
        "federation": {"checkpoint_every": checkpoint_every(setting)},
    }
    path = setting.out / "experiments" / f"{method}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_experiment(path)


def checkpoint_every(setting: Setting) -> int:
    """Return the rounds between two checkpoints."""
    return setting.size(EVERY, 2)


def scan(setting: Setting, source: PackSource | None) -> None:
    """Scan and describe all slices, in threads, before the first method does it in one."""
    began, threads = time.monotonic(), torch.get_num_threads()
    with ThreadPoolExecutor(setting.size(WORKERS, 2)) as pool:

        def shards(plan: PreparePlan, todo: Sequence[Shard]) -> Iterator[Outcome]:
            yield from pool.map(
                lambda shard: do_shard(plan.source, plan.settings, shard, plan.cache), todo
            )

        def reports(how: Reports, slices: Sequence[Slice]) -> Iterator[DescribedSlices]:
            describer = how.make()
            parts = [slices[k : k + 8] for k in range(0, len(slices), 8)]
            for part, told in zip(
                parts, pool.map(lambda p: describe_slices(describer, p), parts), strict=True
            ):
                yield DescribedSlices([s.image for s in part], told)

        first = next(iter(METHODS))
        try:
            prepared = prepare(
                experiment(setting, first, ROUNDS, source), shards, reports, None, source
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    torch.set_num_threads(threads)
    slices = sum(
        n["slices"] for part in prepared.data_summary["splits"].values() for n in part.values()
    )
    kind = "real CT" if source else "phantoms"
    setting.record.measured(
        "paper", "data", what=kind, scans=slices, seconds=time.monotonic() - began
    )


def train(
    setting: Setting, clock: Clock, progress: Progress, method: str, source: PackSource | None
) -> dict[str, Any]:
    """Run a method as far as its time goes, test it there, and return what was seen.

    First a few rounds are run for their time, and then as many as there is time for, the test
    included: as long as the first part took beside its rounds, and twice that again.
    """
    root = setting.out / "runs" / method
    every, most = progress.every, setting.size(ROUNDS, 4)

    def go(rounds: int, tested: bool) -> None:
        run_experiment(
            experiment(setting, method, rounds, source),
            root,
            resume=True,
            runtime="inline",
            on_event=progress,
            tested=tested,
            source=source,
            page=False,
        )

    before = reached(root)
    began = time.monotonic()
    go(min(most, before + every), tested=False)
    a_round = _median(progress.seconds)
    beside = time.monotonic() - began - sum(progress.seconds)
    affordable = int((clock.left() - 3 * beside) / a_round) // every * every if a_round else 0
    go(min(most, progress.kept + max(0, affordable)), tested=True)
    return {
        "rounds": progress.kept,
        "seconds_a_round": a_round,
        "s": time.monotonic() - began,
        "result": ALL if progress.kept >= most else "cut: a second call goes on",
        **scores(root),
    }


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def reached(root: Path) -> int:
    """Return how many rounds of a run have a checkpoint, as many as its experiment asked for."""
    if not (root / "experiment.yaml").exists():
        return 0
    return int(yaml.safe_load((root / "experiment.yaml").read_text())["training"]["rounds"])


def scores(root: Path) -> dict[str, float]:
    """Return the means over clients, or unseen protocols, of the last evaluation's metrics."""
    table = RunDirectory(root).read_table("metrics.parquet")
    last = int(max(table.column("round")))
    means = table.where(round=last).means("split", "metric")
    return {
        f"{split} {metric}": value
        for (split, metric), value in sorted(means.items())
        if metric in ("psnr", "ssim") and split in SPLITS
    }

"""One pretraining: prepare its slices, train, write the asset and its page."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from physfed_ray.assets.store import ENDING, About, Asset, assets_folder, write_asset
from physfed_ray.data.prepare import prepare
from physfed_ray.data.prepared import Prepared
from physfed_ray.data.pseudonyms import pseudonymous_command, pseudonymous_keys
from physfed_ray.device import torch_threads
from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment.differences import differences
from physfed_ray.experiment.pretrain import Pretrain
from physfed_ray.pages.asset_page import AssetPage, asset_page
from physfed_ray.pretraining.checkpoint import Checkpoint, Course
from physfed_ray.pretraining.making import make_job
from physfed_ray.pretraining.training import Job, Outcome, Watch, new_network, train
from physfed_ray.pretraining.wanted import Wanted, wanted
from physfed_ray.rundir.lock import alone
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.results import provenance

SETTINGS_FILE = "pretrain.yaml"
DATA_FILE = "pretrain_data.json"
CHECKPOINT = "checkpoint.safetensors"
LOSSES_FILE = "losses.csv"
ASSET_FILE = "asset.json"
STEPS = "training.steps"
"""The key that decides the result and that resume may yet raise."""


def run_pretrain(
    pretrain: Pretrain,
    out: Path | str,
    *,
    resume: bool = False,
    runtime: Literal["ray", "inline"] = "ray",
    address: str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    command: str = "",
) -> Asset:
    """Train a frozen network, or go on with it, and return the asset.

    Args:
        pretrain: The file.
        out: Folder of the run, a local path or an fsspec URL.
        resume: Go on from the last checkpoint of ``out``.
        runtime: "ray", by the workers of Ray Train, or "inline" (one process).
        address: Ray cluster to join; None starts one on this machine.
        on_event: Receives messages, the events of the preparation, and ``{"event": "step",
            "step": int, "steps": int, "losses": dict}``.
        command: The command line, for the page.

    Raises:
        PhysFedError: For anything a user can mend.
    """
    if runtime == "inline" and pretrain.training.workers > 1:
        raise PhysFedError(
            f"training.workers is {pretrain.training.workers}, and --runtime inline is one "
            "process: leave one of them out"
        )
    directory = RunDirectory(out)

    def tell(text: str) -> None:
        on_event({"event": "message", "text": text})

    with ExitStack() as stack:
        content = _content(pretrain)
        _check_begun(directory, content, resume)
        directory.guard = stack.enter_context(alone(directory.root, tell))
        stack.callback(directory.close)
        data = wanted(pretrain)
        if data.leak:
            tell(data.leak)
        prepared = _prepared(data, runtime, address, on_event)
        job, about = make_job(pretrain, data, prepared, _device(runtime))
        _check_data(directory, about.data, resume)
        directory.write(SETTINGS_FILE, yaml.safe_dump(content, sort_keys=False).encode())
        directory.write_json(DATA_FILE, about.data)
        watch = _Kept(directory, job.training.steps, on_event)
        outcome = _trained(job, runtime, _begin(directory, tell), watch)
        asset, course = _written(directory, job, about, outcome)
        page = AssetPage(asset, course, outcome.tables, pseudonymous_command(command))
        directory.write("report.html", asset_page(page).encode())
    return asset


def _content(pretrain: Pretrain) -> dict[str, Any]:
    """Return the keys as a run writes them: listed patients under their pseudonyms."""
    content: dict[str, Any] = pseudonymous_keys(pretrain.model_dump(mode="json"))
    return content | {"provenance": provenance()}


def _check_begun(directory: RunDirectory, content: Mapping[str, Any], resume: bool) -> None:
    """Refuse a folder of something else, or of a pretraining with other settings.

    Raises:
        PhysFedError: It is one.
    """
    path = directory.local_path
    if path is not None and path.exists() and not path.is_dir():
        raise PhysFedError(f"{directory.root} is a file, not a folder: choose another --out")
    begun = directory.has(SETTINGS_FILE)
    if directory.names() - {".lock"} and not (begun and resume):
        what = "a pretraining" if begun else "other files"
        remedy = "add --resume to go on with it, or choose another --out"
        raise PhysFedError(
            f"{directory.root} already holds {what}: {remedy if begun else 'choose another --out'}"
        )
    directory.check()
    if not begun:
        return
    before = directory.read_yaml(SETTINGS_FILE)
    changed = differences(before, content, Pretrain)
    fewer = before.get("training", {}).get("steps", 0) > content["training"]["steps"]
    if others := [key for key in changed if key != STEPS or fewer]:
        raise PhysFedError(
            f"{directory.root} was made with other settings ({', '.join(others)}): resume with the "
            "same file, or choose another --out"
        )


def _prepared(
    data: Wanted,
    runtime: str,
    address: str | None,
    on_event: Callable[[Event], None],
) -> Prepared:
    if runtime == "inline":
        return prepare(data.experiment, progress=on_event, source=data.source)
    from physfed_ray.runtime.cluster import connect
    from physfed_ray.runtime.prepare import prepare_on_ray

    if (said := connect(address)) is not None:
        on_event({"event": "message", "text": said})
    return prepare_on_ray(data.experiment, on_event)


def _device(runtime: str) -> str:
    if runtime == "inline":
        return "cuda" if torch.cuda.is_available() else "cpu"
    from physfed_ray.runtime.cluster import alive_nodes

    return "cuda" if any(node.get("GPU") for node in alive_nodes()) else "cpu"


def _check_data(directory: RunDirectory, data: Mapping[str, Any], resume: bool) -> None:
    """Refuse to go on with other images.

    Raises:
        PhysFedError: They are others.
    """
    if resume and directory.has(DATA_FILE):
        before = directory.read_json(DATA_FILE)
        if before["scans"] != data["scans"]:
            raise PhysFedError(
                f"the images of {directory.root} have changed since it began: resume with those "
                "that it began with, or choose another --out"
            )


class _Kept:
    """Keeps checkpoints in the folder of the run, and tells how it goes.

    Args:
        directory: The folder.
        steps: Steps in all.
        on_event: Is told.
    """

    def __init__(
        self, directory: RunDirectory, steps: int, on_event: Callable[[Event], None]
    ) -> None:
        self._directory, self._steps, self._on_event = directory, steps, on_event

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Watch``."""
        event = {"event": "step", "step": step, "steps": self._steps, "losses": dict(values)}
        self._on_event(event)

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Watch``."""
        self._on_event({"event": "message", "text": f"after step {step}: {in_words(values)}"})

    def checkpoint(self, step: int, content: bytes) -> None:
        """See ``Watch``; the one before is replaced, whole or not at all."""
        self._directory.guard()
        self._directory.write(CHECKPOINT, content)


def in_words(values: Mapping[str, float]) -> str:
    """Return scores or losses on one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _begin(directory: RunDirectory, tell: Callable[[str], None]) -> bytes | None:
    """Return the checkpoint to go on from, None where there is none.

    Raises:
        PhysFedError: It is damaged.
    """
    if not directory.exists(CHECKPOINT):
        return None
    content = directory.read(CHECKPOINT)
    try:
        step = Checkpoint.read(content).step
    except Exception as error:  # whatever a damaged file makes of the reader
        raise PhysFedError(
            f"{directory.root}/{CHECKPOINT} is damaged: delete it to begin again ({error})"
        ) from None
    tell(f"going on after step {step}")
    return content


def _trained(job: Job, runtime: str, begin: bytes | None, watch: Watch) -> Outcome:
    if runtime == "inline":
        with torch_threads(job.training.threads):
            outcome = train(job, begin, watch)
        assert outcome is not None
        return outcome
    from physfed_ray.runtime.pretrain_workers import train_on_ray

    return train_on_ray(job, begin, watch)


def _written(
    directory: RunDirectory, job: Job, about: About, outcome: Outcome
) -> tuple[Asset, Course]:
    """Write the asset into the folder of assets and that of the run, with the losses."""
    last = Checkpoint.read(directory.read(CHECKPOINT))
    network = new_network(replace(job, device="cpu"))
    last.fill(network)
    words = {name: tuple(listed) for name, listed in job.recipe.words().items()}
    versions = provenance()["versions"]
    about = replace(about, scores=outcome.scores, words=words, versions=versions)
    asset = write_asset(assets_folder(), about, network, job.constants)
    directory.write(f"{asset.name}{ENDING}", asset.path.read_bytes())
    said = asdict(asset.about) | {"name": asset.name}
    directory.write(ASSET_FILE, (json.dumps(said, indent=1) + "\n").encode())
    last.course.scores.append((last.step, outcome.scores))
    rows = ["step,split,name,value"]
    rows += [f"{step},{split},{name},{value!r}" for step, split, name, value in last.course.rows()]
    directory.write(LOSSES_FILE, ("\n".join(rows) + "\n").encode())
    return asset, last.course

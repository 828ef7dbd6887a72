"""Run directories, checkpoints and prepared data with damaged, swapped or missing files."""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from physfed_ray.data.prepare import prepare
from physfed_ray.data.store import read_client_data, read_field, read_scans
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.results.runs import read_results
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.trained import load_run
from tests.fuzz.harness import SAME, Attempt, Kind, WrongError, call, refused
from tests.fuzz.mutators import bend, damage

EXPERIMENT = """
name: tiny
seed: 3
reports: {encoder: hashed}
data:
  source: {phantom: {patients: 4, slices: 2}}
  image_size: 32
  object_scale: 1
  test_patients: 1
  validation_patients: 1
clients:
  - {id: c1, protocol: paper-2}
  - {id: c2, protocol: paper-6}
unseen: [{id: u1, protocol: unseen-2}]
backbone: {name: red_cnn, channels: 2}
method: {name: scan_physfed}
training: {rounds: 3, batch_size: 2, patch: 32, evaluate_every: 1}
federation: {keep_checkpoints: 3}
"""
ROUNDS, MORE_ROUNDS = 3, 4
TIMES = {"seconds", "steps_per_s", "slices_per_s"}
UNREAD = ("figures", "tables", "report.html", "events.out")
"""What a run writes for people only."""


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[None]:
    before = os.environ.get("PHYSFED_CACHE")
    os.environ["PHYSFED_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PHYSFED_CACHE"]
        else:
            os.environ["PHYSFED_CACHE"] = before


def make_run(folder: Path, name: str = "run", seed: int = 3) -> None:
    """Make a finished run and its cache in a folder, once."""
    if (folder / name).exists():
        return
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    with _cache(folder / "cache" if seed == 3 else folder / "other-cache"):
        status, text = call(
            "run", str(folder / "tiny.yaml"), "--out", str(folder / name),
            "--runtime", "inline", "--set", f"seed={seed}",
        )  # fmt: skip
    if status != 0:
        raise RuntimeError(text)


def _files(root: Path) -> list[str]:
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith(UNREAD))


def disturb(attempt: Attempt, root: Path, names: list[str], others: list[str]) -> None:
    """Damage, bend, lose, swap or replace one or two of the files below a folder."""
    rng = attempt.rng
    for _ in range(rng.choice([1, 1, 1, 2])):
        name = rng.choice(names)
        path = root / name
        if not path.is_file():
            continue
        how = rng.choice(["bytes"] * 5 + ["bend", "bend", "lose", "swap", "copy", "folder"])
        attempt.damage.append(f"{how} {name}")
        if how == "bend" and (bent := _bent(rng, path, attempt.damage)) is not None:
            path.write_bytes(bent)
        elif how in ("bytes", "bend"):
            path.write_bytes(damage(rng, path.read_bytes(), attempt.damage))
        elif how == "lose":
            path.unlink()
        elif how == "folder":
            path.unlink()
            path.mkdir()
        else:
            alike = [o for o in others if o != name and Path(o).suffix == path.suffix]
            other = root / rng.choice(alike or [name])
            if not other.is_file():
                continue
            attempt.damage.append(f"with {other.relative_to(root)}")
            content = path.read_bytes()
            path.write_bytes(other.read_bytes())
            if how == "swap":
                other.write_bytes(content)


def _bent(rng: random.Random, path: Path, said: list[str]) -> bytes | None:
    """Return a file of nested values with a part changed, valid in its format; None for others."""
    try:
        if path.suffix == ".json":
            return json.dumps(bend(rng, json.loads(path.read_text()), said)).encode()
        if path.suffix == ".yaml":
            return yaml.safe_dump(bend(rng, yaml.safe_load(path.read_text()), said)).encode()
    except (ValueError, RecursionError, yaml.YAMLError):
        return None
    return None


def _plain(value: Any) -> Any:
    """Return what may be compared with ``==``: no arrays, no NaN."""
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return repr(value) if isinstance(value, float) else value


def _scores(rows: list[tuple[Any, ...]]) -> dict[str, str]:
    return {repr(row[:-1]): repr(row[-1]) for row in rows if row[-2] not in TIMES}


class Runs(Kind):
    """A finished run with a damaged file: its model, its results, its pages, and going on."""

    name = "run"
    quick: tuple[str, ...] = ("model", "results")
    slow: tuple[str, ...] = ("report", "compare", "resume", "more")

    def __init__(self, slow_part: float = 0.15) -> None:
        self._slow_part = slow_part

    def prepare(self, folder: Path) -> None:
        """Make the run, and remember what every door gives of it."""
        make_run(folder)
        torch.set_num_threads(1)
        self._home = folder
        self._names = self._targets(folder / "run")
        rng = np.random.default_rng(0)
        self._image = rng.uniform(-900, 900, (1, 32, 32)).astype(np.float32)
        self._undisturbed: dict[str, Any] = {}
        for round_number in range(1, ROUNDS + 1):
            root = self._copy(folder / f"first-{round_number}")
            (root / "summary.json").unlink()  # it says which round was the last
            for later in range(round_number + 1, ROUNDS + 1):
                shutil.rmtree(root / f"checkpoints/round-{later:04d}")
            self._undisturbed[f"model {round_number}"] = self._model(root)
            shutil.rmtree(root)
        if "compare" in self.slow and self._slow_part:
            make_run(folder, "other", seed=4)
        for door in ({*self.quick, *self.slow} - {"model"}) if self._slow_part else self.quick[1:]:
            root = self._copy(folder / door)
            with _cache(folder / "cache"):
                self._undisturbed[door] = getattr(self, f"_{door}")(root, [])
            shutil.rmtree(root)

    def _targets(self, root: Path) -> list[str]:
        names = [name for name in _files(root) if not name.startswith("checkpoints/")]
        state = [name for name in _files(root) if name.endswith("state.json")]
        return names + state

    def attempt(self, attempt: Attempt) -> str:
        """Damage a copy of the run and look at it through one of the doors."""
        root = self._copy(attempt.folder / "run")
        is_slow = attempt.rng.random() < self._slow_part
        door = attempt.rng.choice(self.slow if is_slow else self.quick)
        disturb(attempt, root, self._names, _files(root))
        attempt.damage.insert(0, door)
        if door == "model":
            found = self._model(root)
            if found == self._undisturbed[f"model {ROUNDS}"]:
                return SAME
            if found in [self._undisturbed[f"model {n}"] for n in range(1, ROUNDS)]:
                return attempt.changed("the model of an earlier round")
            return attempt.changed("another model")
        with _cache(self._home / "cache"):
            found = getattr(self, f"_{door}")(root, attempt.told)
        return (
            SAME
            if found == self._undisturbed[door]
            else attempt.changed(self._changes(door, found))
        )

    def _changes(self, door: str, found: Any) -> str:
        before = self._undisturbed[door]
        if isinstance(found, dict):
            keys = [key for key in {*found, *before} if found.get(key) != before.get(key)]
            return f"other {door}: {len(keys)} of {len(before)}, such as {min(map(str, keys))[:80]}"
        return f"other {door}"

    def _copy(self, root: Path) -> Path:
        ignored = shutil.ignore_patterns("figures", "tables", "report.html")
        return Path(shutil.copytree(self._home / "run", root, ignore=ignored))

    def _model(self, root: Path) -> Any:
        run = load_run(root)
        card = run.card
        embedding = np.ones((1, card.statistics.tokens, card.statistics.dim), np.float32)
        given = [run.denoiser("c1"), run.denoiser(protocol="unseen-2")]
        return [_plain(denoiser(self._image, embedding=embedding)) for denoiser in given]

    def _results(self, root: Path, told: list[str]) -> Any:
        run = read_results(root)
        told += [str(getattr(run, "notice", "") or "")] if getattr(run, "notice", "") else []
        experiment = {k: v for k, v in run.experiment.items() if k != "provenance"}
        return {
            "experiment": _plain(experiment),
            "summary": _plain(dict(run.summary)),
            "metrics": _scores(run.metrics.rows()),
            "slices": _scores(run.slices.rows()),
            "arrays": _plain(dict(run.arrays)),
            "codebook": _plain(run.codebook),
            "missing": _plain(run.missing),
        }

    def _report(self, root: Path, told: list[str]) -> Any:
        self._checked(told, "report", str(root))
        tables = (root / "tables").glob("*.csv")
        return {path.name: path.read_text() for path in tables}

    def _compare(self, root: Path, told: list[str]) -> Any:
        page = root.with_name("page.md")
        self._checked(told, "compare", str(root), str(self._home / "other"), "--out", str(page))
        return page.read_text().replace(str(root.parent), "")

    def _resume(self, root: Path, told: list[str]) -> Any:
        return self._resumed(root, told, ROUNDS)

    def _more(self, root: Path, told: list[str]) -> Any:
        return self._resumed(root, told, MORE_ROUNDS)

    def _resumed(self, root: Path, told: list[str], rounds: int) -> Any:
        text = self._checked(
            told, "run", str(self._home / "tiny.yaml"), "--out", str(root), "--runtime", "inline",
            "--resume", "--set", f"training.rounds={rounds}",
        )  # fmt: skip
        directory = RunDirectory(root)
        last = directory.last_manifest()
        if last is None or last.round != rounds:
            raise WrongError(f"the run ended with exit status 0 after {last}: {text[:200]}")
        metrics = _scores(read_results(root).metrics.rows())
        system = {key: value for key, value in metrics.items() if "'system'" not in key}
        return system | {"model": self._model(root)}

    def _checked(self, told: list[str], *command: str) -> str:
        """Run a command; an error must be one line, and a remark counts as told."""
        status, text = call(*command)
        refused(status, text)
        told += [line for line in text.splitlines() if any(w in line for w in REMARKS)]
        return text


REMARKS = ("damaged", "is gone", "instead", "other statistics", "anew", "missing", "not as it was")


class Checkpoints(Runs):
    """Parts of checkpoints damaged, or swapped between rounds and clients."""

    name = "checkpoint"
    quick = ("model",)
    slow = ("more",)

    def _targets(self, root: Path) -> list[str]:
        return [name for name in _files(root) if name.startswith("checkpoints/")]


class Arrow(Kind):
    """Prepared data and the cache below it, each file damaged in its turn."""

    name = "arrow"

    def prepare(self, folder: Path) -> None:
        """Make the cache, and read all that lies in it."""
        make_run(folder)
        self._home = folder
        self._names = _files(folder / "cache")
        self._arrays = {name: self._read(folder / "cache" / name) for name in self._names}
        self._prepared = self._prepare(folder / "cache")

    def attempt(self, attempt: Attempt) -> str:
        """Damage a copy of the cache; read the files one by one, or prepare the data again."""
        root = attempt.folder / "cache"
        shutil.copytree(self._home / "cache", root)
        disturb(attempt, root, self._names, self._names)
        if attempt.rng.random() < 0.8:
            attempt.damage.insert(0, "read")
            refused: PhysFedError | None = None
            for name in self._names:
                try:
                    if self._read(root / name) != self._arrays[name]:
                        raise WrongError(f"{name} has other values")
                except PhysFedError as error:
                    refused = error
            if refused is not None:
                raise refused
            return SAME
        attempt.damage.insert(0, "prepare")
        if self._prepare(root) != self._prepared:
            return attempt.changed("other prepared data")
        return SAME

    def _read(self, path: Path) -> Any:
        kind = path.parts[-3] if path.suffix == ".arrow" else ""
        if kind == "prepared":
            return _plain(vars(read_client_data(path)))
        if kind == "shards":
            is_field = len(path.suffixes) == 2
            return _plain(read_field(path) if is_field else vars(read_scans(path)))
        return None  # manifests and descriptions are read when data are prepared

    def _prepare(self, cache: Path) -> Any:
        with _cache(cache):
            prepared = prepare(load_experiment(self._home / "tiny.yaml"))
        parts = [*prepared.clients, *prepared.unseen]
        files = [f for part in parts for f in (part.train, part.validation, part.test) if f]
        read = [_plain(vars(read_client_data(file))) for file in files]
        counts = [[part.id, part.slices, part.patients, part.protocol] for part in parts]
        return read, _plain(vars(prepared.statistics)), counts

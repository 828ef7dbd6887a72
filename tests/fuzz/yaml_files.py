"""Experiment files with damaged bytes, words and structure."""

import json
import math
import random
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.suites.suite import is_suite, load_suite
from physfed_ray.sweep.space import load_sweep
from tests.fuzz.harness import SAME, Attempt, Kind, WrongError, call, refused
from tests.fuzz.mutators import ODD_NUMBERS, ODD_TEXTS, bend, damage, odd_value

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = """\
name: tiny
seed: 3
data:
  source: {phantom: {patients: 5, slices: 3}}
  image_size: 48
  slices_per_patient: 2
  window_hu: [-1000, 2000]
  clinical_windows: {soft: [-160, 240]}
  test_patients: 1
  validation_patients: [phantom-1]
  electronic_noise: 3.5
clients:
  - {id: c1, protocol: paper-2, patients: 2}
  - {id: c2, protocol: {views: 200, bins: 256, pixel_mm: 0.7, bin_mm: 2, source_mm: 300,
                        detector_mm: 300, photons: 1e5}}
unseen: [{id: u1, protocol: unseen-2}]
backbone: {name: red_cnn, channels: 4}
method: {name: scan_physfed, tau: 0.1}
training: {rounds: 3, batch_size: 2, lr: 1e-3, patch: 32, optimizer: adam}
federation: {quorum: 0.5, checkpoint_every: 2, clients_per_host: auto, deadline_s: null}
evaluation: {metrics: [fsim]}
tracking: []
"""
DEEP = 5000
BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefgh")
)
"""Nine to the seventh entries, in half a kilobyte."""
LINES = (
    "<<: *a", "<<: {seed: 7}", "x: &a {b: 1}", "seed: *nobody", "? [1, 2]\n: 3", "- item",
    "%YAML 9", "---\nname: second", "...", "seed: 0b101", "seed: 1_0", "seed: !!int '3'",
    "seed: !!float 1", "name: !!python/object/apply:os.system [id]", "name: !!binary aGk=",
    "data: !!set {a, b}", "seed: 2020-01-01", "seed: 1:30", "name: |\n  block", "name: >-\n  text",
    "\tname: tab", "name: 'open", 'name: "\\ud800"', "name: \x85", "seed: " + "9" * 6000,
    "seed: 0x" + "f" * 4000, "name: " + "a" * 400, "seed: " + "[" * DEEP, "seed: " + "{a: " * DEEP,
    "- " * DEEP + "x", "seed: " + "[" * DEEP + "]" * DEEP, BOMB, BOMB + "name: *h",
    "seed: &s [*s]", "a: &r {b: *r}",
)  # fmt: skip
KEYS = (
    "seed", "name", "training.lr", "training.rounds", "data.image_size", "data.window_hu",
    "clients", "clients.0.id", "clients.0.protocol", "clients.1.protocol.photons", "method",
    "method.name", "backbone.channels", "federation.quorum", "data.source", "evaluation.metrics",
    "nothing", "training.lr.deeper", "clients.7", "clients.-1", "", ".", "data..x", "provenance",
    "suite",
)  # fmt: skip
REWRITTEN = {"provenance", "cache", "dicom"}
"""Keys whose values a loaded file may show otherwise: paths become absolute."""


class Yaml(Kind):
    """A file is refused in one sentence, or means what it says and comes back the same."""

    name = "yaml"

    def prepare(self, folder: Path) -> None:
        """Read the files that come with the project."""
        texts = {path.name: path.read_text() for path in sorted(EXPERIMENTS.glob("*.yaml"))}
        self._texts = {"small.yaml": SMALL, **texts}
        self._contents = {name: yaml.safe_load(text) for name, text in self._texts.items()}
        self._experiments = [
            name
            for name, c in self._contents.items()
            if not {"suite", "sweep", "pretrain", "surrogate"} & c.keys()
        ]
        folder.mkdir(exist_ok=True)
        for name in self._experiments:
            (folder / name).write_text(self._texts[name])
            load_experiment(folder / name)

    def attempt(self, attempt: Attempt) -> str:
        """Damage a file and load it; at times its overrides, or through the command line."""
        rng = attempt.rng
        where = rng.random()
        name = "small.yaml"
        if where < 0.4:
            name = rng.choice(list(self._texts) if where < 0.1 else self._experiments)
            for other, text in self._texts.items():  # a suite names its base
                (attempt.folder / other).write_text(text)
        path = attempt.folder / name
        path.write_text(self._texts[name])
        content = None
        overrides: list[str] = []
        how = rng.random()
        if how < 0.25:
            path.write_bytes(damage(rng, self._texts[name].encode(), attempt.damage))
        elif how < 0.5:
            text = _damaged_text(rng, self._texts[name], attempt.damage)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        elif how < 0.6:
            overrides = [f"{rng.choice(KEYS)}={_word(rng)}" for _ in range(rng.choice([1, 2]))]
            attempt.damage += overrides
        else:
            content = self._contents[name]
            for _ in range(rng.choice([1, 1, 2, 4])):
                content = bend(rng, content, attempt.damage)
            if not _dumped(content, path):
                return SAME
        attempt.damage.insert(0, name)
        if rng.random() < 0.1:
            return _through_the_command_line(path, overrides)
        return _load(path, overrides, content)


def _dumped(content: Any, path: Path) -> bool:
    """Write YAML, without surrogates and numbers that YAML's own writer refuses."""
    try:
        path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return True


def _load(path: Path, overrides: list[str], content: Any) -> str:
    try:
        suite = is_suite(path)
    except PhysFedError:
        suite = False
    if suite:
        load_suite(path, overrides)
        return SAME
    if isinstance(content, dict) and "sweep" in content:
        load_sweep(path, overrides)
        return SAME
    experiment = load_experiment(path, overrides)
    again = path.with_name("again.yaml")
    again.write_text(experiment.to_yaml(), encoding="utf-8")
    if load_experiment(again) != experiment:
        raise WrongError("what was loaded and written is loaded as another experiment")
    if isinstance(content, dict) and not overrides:
        _compare(content, experiment.model_dump(mode="json"), "")
    return SAME


def _compare(said: Any, shown: Any, where: str) -> None:
    """Compare what a file says with what the loaded experiment shows, where both are plain."""
    if isinstance(said, Mapping) and isinstance(shown, Mapping):
        for key in said.keys() & shown.keys() - REWRITTEN:
            _compare(said[key], shown[key], f"{where}.{key}")
    elif isinstance(said, list) and isinstance(shown, list):
        if len(said) != len(shown):
            raise WrongError(f"{where} has {len(said)} entries and {len(shown)} are loaded")
        for index, (one, other) in enumerate(zip(said, shown, strict=True)):
            _compare(one, other, f"{where}.{index}")
    elif _plain(said) and _plain(shown) and not _means(said, shown):
        raise WrongError(f"{where} says {said!r:.80} and {shown!r:.80} is loaded")


def _plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _means(said: Any, shown: Any) -> bool:
    if isinstance(said, bool) or isinstance(shown, bool):
        return said is shown
    try:
        return said == shown or math.isclose(float(said), float(shown), rel_tol=1e-12)
    except (ValueError, OverflowError):
        return False


def _through_the_command_line(path: Path, overrides: list[str]) -> str:
    """Describe an experiment; what is refused is one line, and the exit status says so."""
    sets = [part for override in overrides for part in ("--set", override)]
    refused(*call("describe", str(path), *sets))
    return SAME


def _word(rng: random.Random) -> str:
    value = rng.choice([rng.choice(ODD_NUMBERS), rng.choice(ODD_TEXTS), rng.choice(LINES)])
    try:
        return json.dumps(odd_value(rng)) if rng.random() < 0.2 else str(value)
    except ValueError:  # Python itself refuses to write integers of thousands of digits
        return "9" * 5000


def _damaged_text(rng: random.Random, text: str, said: list[str]) -> str:
    """Return a text with lines, indentation or single words changed."""
    lines = text.splitlines()
    index = rng.randrange(len(lines))
    how = rng.choice(["line", "line", "word", "word", "word", "delete", "double", "swap", "indent",
                      "dedent", "colon", "newlines", "comment", "encoding"])  # fmt: skip
    said.append(f"{how} at line {index + 1}")
    if how == "line":
        new = rng.choice(LINES)
        said.append(new[:40])
        lines.insert(index if rng.random() < 0.5 else 0, new)
    elif how == "word":
        words = lines[index].split(" ")
        at = rng.randrange(len(words))
        words[at] = rng.choice([_word(rng), words[at] + ",", words[at][::-1]])
        lines[index] = " ".join(words)
    elif how == "delete":
        del lines[index : index + rng.choice([1, 1, 2, 5])]
    elif how == "double":
        lines.insert(rng.randrange(len(lines)), lines[index])
    elif how == "swap":
        other = rng.randrange(len(lines))
        lines[index], lines[other] = lines[other], lines[index]
    elif how == "indent":
        lines[index] = rng.choice([" ", "  ", "\t"]) + lines[index]
    elif how == "dedent":
        lines[index] = lines[index].removeprefix(" ").removeprefix(" ")
    elif how == "colon":
        lines[index] = lines[index].replace(": ", rng.choice([":", " : ", "= ", ": : "]))
    elif how == "comment":
        lines[index] = lines[index].replace(" ", "#", 1)
    ends = rng.choice(["\r\n", "\r", "\u2028"]) if how == "newlines" else "\n"
    joined = ends.join(lines) + "\n"
    return rng.choice(["\ufeff", "\x00", "\ud800"]) + joined if how == "encoding" else joined

"""A suite: methods x backbones x seeds over one experiment, checked before anything runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, checked
from physfed_ray.experiment.explain import explain
from physfed_ray.experiment.file import apply_overrides, read_yaml, set_key
from physfed_ray.suites.file import (
    SETTABLE,
    Choice,
    SuiteFile,
    read_suite,
    scaled,
    take,
)

OWNED = {"seed": "seeds", "method": "methods", "method.name": "methods", "label": "methods"}
"""Keys of an experiment that the suite gives each run, with the suite's own key for them."""
"""What the trials said, in the suite's folder."""


@dataclass(frozen=True)
class SuiteRun:
    """One run directory of a suite.

    Attributes:
        path: Its place below the suite's folder, ``runs/...`` or ``learning_rates/...``.
        experiment: What runs there.
    """

    path: str
    experiment: Experiment

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.rpartition("/")[2]

    def at(self, lr: float) -> "SuiteRun":
        """Return the run with another learning rate."""
        training = self.experiment.training.model_copy(update={"lr": lr})
        return SuiteRun(self.path, self.experiment.model_copy(update={"training": training}))


@dataclass(frozen=True)
class Variant:
    """One method on one backbone.

    Attributes:
        name: Begins the names of its run directories.
        label: What a reader calls it.
        runs: One a seed.
        trials: One a learning rate of the grid, ascending; empty where the rate is given.
    """

    name: str
    label: str
    runs: tuple[SuiteRun, ...]
    trials: tuple[SuiteRun, ...]


@dataclass(frozen=True)
class Suite:
    """A suite, resolved: every run's experiment is complete and checked.

    Attributes:
        name: Names its page.
        folder: Name of the folder of its runs, with the scale.
        variants: Methods on backbones, in the file's order.
    """

    name: str
    folder: str
    variants: tuple[Variant, ...]

    @property
    def runs(self) -> list[SuiteRun]:
        """The runs without the trials, all methods of a seed before the next seed."""
        return [run for seed in zip(*(v.runs for v in self.variants), strict=True) for run in seed]


def is_suite(path: Path | str) -> bool:
    """Say whether a file is a suite rather than an experiment.

    Raises:
        PhysFedError: The file is missing, not YAML, or not a mapping.
    """
    return "suite" in read_yaml(Path(path))


def load_suite(path: Path | str, overrides: Iterable[str] = ()) -> Suite:
    """Read, override, expand and check a suite file.

    Args:
        path: The YAML file.
        overrides: ``key.path=value`` entries: ``scale``, ``base``, keys of the suite, or keys of
            every run's experiment.

    Raises:
        PhysFedError: The file or one of its runs does not fit the schema.
    """
    path, given = Path(path), list(overrides)
    base = take(given, "base")
    scale = take(given, "scale")
    content, origin = read_suite(path, base)
    where = str(path) if origin == path else f"{path} (on {origin.name})"
    settings = scaled(content, scale, path)
    own = [entry for entry in given if entry.partition(".")[0].partition("=")[0] in SETTABLE]
    apply_overrides(content, own)
    try:
        file = SuiteFile.model_validate(content)
    except ValidationError as error:
        raise PhysFedError(f"{path}: {explain(error, SuiteFile)}") from None
    expand = _Expansion(file, settings, [e for e in given if e not in own], origin, where)
    variants = tuple(expand.variants())
    _refuse_twins(variants, where)
    folder = (file.runs or file.suite) + (f"-{scale}" if scale else "")
    return Suite(file.suite, folder, variants)


def _refuse_twins(variants: Sequence[Variant], where: str) -> None:
    """Refuse two names for the same runs."""
    labels: dict[str, str] = {}
    for variant in variants:
        unnamed = variant.runs[0].experiment.model_copy(update={"label": None})
        other = labels.setdefault(unnamed.to_yaml(), variant.label)
        if other != variant.label:
            raise PhysFedError(
                f"{where}: '{other}' and '{variant.label}' are the same runs; leave one out"
            )


class _Expansion:
    """Turns a suite's keys into checked runs.

    Args:
        file: The suite.
        scale: Keys of the experiment that the scale sets.
        overrides: ``--set`` entries of the experiment.
        origin: File that holds the experiment; relative paths are relative to it.
        where: The file or files, for error messages.
    """

    def __init__(
        self,
        file: SuiteFile,
        scale: Mapping[str, Any],
        overrides: Sequence[str],
        origin: Path,
        where: str,
    ) -> None:
        self._file, self._scale, self._overrides = file, scale, overrides
        self._base, self._where = origin.parent.resolve(), where
        written = [*file.settings, *scale]
        self._refuse([*written, *(entry.partition("=")[0].strip() for entry in overrides)])

    def _refuse(self, keys: Iterable[str]) -> None:
        """Refuse keys of the experiment that the suite itself gives each run."""
        owned = dict(OWNED)
        if self._file.backbones is not None:
            owned |= {"backbone": "backbones", "backbone.name": "backbones"}
        if self._file.learning_rates is not None:
            owned |= {"training.lr": "learning_rates"}
        for key in keys:
            if key in owned:
                raise PhysFedError(
                    f"{self._where}: {key}: in a suite, '{owned[key]}' decides this; change that"
                )

    def variants(self) -> Iterator[Variant]:
        """Yield every method on every backbone."""
        for backbone in self._file.backbones or (None,):
            for method in self._file.methods:
                yield self._variant(method, backbone)

    def _variant(self, method: Choice, backbone: Choice | None) -> Variant:
        seeds: Sequence[int | None] = self._file.seeds or (None,)
        first, *rest = (self._experiment(method, backbone, seed, {}) for seed in seeds)
        network = backbone.slug if backbone else first.backbone.name
        name = f"{method.slug}-{network}"
        several = backbone is not None and len(self._file.backbones or ()) > 1
        return Variant(
            name,
            f"{method.label}, {backbone.label}" if several and backbone else method.label,
            tuple(SuiteRun(f"runs/{name}-seed{e.seed}", e) for e in (first, *rest)),
            tuple(self._trials(name, method, backbone, first)),
        )

    def _trials(
        self, name: str, method: Choice, backbone: Choice | None, first: Experiment
    ) -> Iterator[SuiteRun]:
        rates = self._file.learning_rates
        if rates is None or "training.lr" in method.settings:
            return
        if not first.data.validation_patients:
            raise PhysFedError(
                f"{self._where}: learning_rates are chosen on validation patients, and there are "
                "none: set data.validation_patients, or learning_rates to null"
            )
        for lr in sorted(set(rates.grid)):
            keys = {"training.lr": lr, "training.rounds": rates.rounds or first.training.rounds}
            trial = self._experiment(method, backbone, first.seed, keys)
            yield SuiteRun(f"learning_rates/{name}-lr{lr:g}", trial)

    def _experiment(
        self, method: Choice, backbone: Choice | None, seed: int | None, last: Mapping[str, Any]
    ) -> Experiment:
        content = deepcopy(self._file.experiment)
        content["method"], content["label"] = deepcopy(method.keys), method.given
        if backbone is not None:
            content["backbone"] = deepcopy(backbone.keys)
        if seed is not None:
            content["seed"] = seed
        own = (backbone.settings if backbone else {}) | method.settings
        try:
            for settings in (self._file.settings, self._scale, own):
                _set_all(content, settings)
            apply_overrides(content, self._overrides)
            _set_all(content, last)
            return checked(content, self._base)
        except PhysFedError as error:
            problem = str(error)
        on = f" on {backbone.label}" if backbone else ""
        raise PhysFedError(f"{self._where}: {method.label}{on}: {problem}")


def _set_all(content: dict[str, Any], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        set_key(content, key.split("."), deepcopy(value), f"settings: {key}")

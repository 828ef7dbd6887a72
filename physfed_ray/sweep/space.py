"""A sweep, read and checked: what a trial's values make of the base experiment."""

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from pydantic import ValidationError

from physfed_ray.data.pseudonyms import pseudonymous, pseudonymous_keys
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, checked
from physfed_ray.experiment.explain import explain
from physfed_ray.experiment.file import apply_overrides, parse_yaml, read_yaml, set_key
from physfed_ray.metrics.registry import STANDARD, measured
from physfed_ray.sweep.file import Parameter, SweepFile, as_list
from physfed_ray.sweep.objectives import find_objective

FIXED = {
    "name": "it only names the run",
    "seed": "use 'seeds'",
    "data.test_patients": "trials on different patients cannot be compared",
    "data.validation_patients": "trials on different patients cannot be compared",
    "data.server_patients": "it changes whom the clients train on",
    "data.window_hu": "scores in different windows cannot be compared",
    "training.evaluate_every": "set it for all trials, under 'settings'",
}
"""Keys that no space may hold, and why."""
DRAWS = 64
"""Random points of a space that are checked before anything runs."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep whose base experiment is read.

    Attributes:
        file: Its keys.
        path: The file, for messages.
        content: The base experiment's keys, settings and overrides included.
        folder: Folder that the experiment's relative paths are relative to.
        notes: What the user should know of how it was read.
    """

    file: SweepFile
    path: Path
    content: Mapping[str, Any]
    folder: Path
    notes: tuple[str, ...] = ()

    def experiment(self, values: Values, seed: int, name: str | None = None) -> Experiment:
        """Return the experiment of a trial.

        Args:
            values: Value of each parameter by its key, without those whose condition is not met.
            seed: Of the run.
            name: Of the experiment; None: the base's.

        Raises:
            PhysFedError: They make no valid experiment.
        """
        content = dict(deepcopy(dict(self.content)), seed=seed)
        if name is not None:
            content["name"] = name
        where = f"{self.path}: space"
        for key, value in values.items():
            set_key(content, key.split("."), deepcopy(value), f"{where}.{key}")
        try:
            return checked(content, self.folder)
        except PhysFedError as error:
            problem = str(error)
        tried = f" with {', '.join(f'{k} = {v}' for k, v in values.items())}" if values else ""
        raise PhysFedError(f"{self.path}{tried}: {problem}")

    def base_values(self) -> dict[str, Any] | None:
        """Return the base experiment's own values, None where they lie outside the space."""
        own = self.experiment({}, self.file.seeds[0]).model_dump(mode="json")
        values: dict[str, Any] = {}
        for key, parameter in self.file.space.items():
            if not applies(parameter, values):
                continue
            value = _get(own, key)
            if not _allows(parameter, value):
                return None
            values[key] = value
        return values

    def settings(self) -> dict[str, Any]:
        """Return what two commands must agree on to work on the same study."""
        kept = ("space", "objectives", "seeds", "sampler", "pruner")
        base = pseudonymous(self.experiment({}, self.file.seeds[0]))
        return {"experiment": base.model_dump(mode="json")} | {
            key: value for key, value in self.file.model_dump(mode="json").items() if key in kept
        }


def load_sweep(path: Path | str, overrides: Iterable[str] = ()) -> Sweep:
    """Read, override and check a sweep file, its space included.

    Args:
        path: The YAML file.
        overrides: ``key.path=value`` entries: keys of the sweep, or of the base experiment.

    Raises:
        PhysFedError: The file does not fit the schema, or a value of the space does not fit the
            experiment's.
    """
    path, given = Path(path), list(overrides)
    content = read_yaml(path)
    if "sweep" not in content:
        raise PhysFedError(f"{path} is no sweep, whose first key is 'sweep'; `physfed run` takes "
                           "experiments and suites")  # fmt: skip
    own = [e for e in given if e.partition("=")[0].partition(".")[0] in SweepFile.model_fields]
    _override(content, own)
    try:
        file = SweepFile.model_validate(content)
    except ValidationError as error:
        raise PhysFedError(f"{path}: {explain(error, SweepFile)}") from None
    base, folder, notes = _base(file, path)
    for key, value in file.settings.items():
        set_key(base, key.split("."), deepcopy(value), f"{path}: settings: {key}")
    apply_overrides(base, [entry for entry in given if entry not in own])
    _measure(base, file)
    sweep = Sweep(file, path, base, folder, notes)
    _check_rounds(sweep)
    _check_objectives(sweep)
    _check_space(sweep)
    return sweep


def _override(content: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set keys of the sweep in place; of ``space.KEY=...``, KEY is a key with dots."""
    for entry in overrides:
        key, equals, value = entry.partition("=")
        parameter = key.removeprefix("space.")
        if equals and parameter != key:
            space = content.setdefault("space", {})
            set_key(space, [parameter.strip()], parse_yaml(value, f"--set {key}"), f"--set {key}")
        else:
            apply_overrides(content, [entry])


def _base(file: SweepFile, path: Path) -> tuple[dict[str, Any], Path, tuple[str, ...]]:
    """Return the base experiment's keys, its folder, and notes on the choice."""
    if file.experiment is not None:
        return deepcopy(file.experiment), path.parent.resolve(), ()
    notes: list[str] = []
    for name in file.base:
        origin = Path(path.parent, name)
        content = read_yaml(origin)
        if kind := next((kind for kind in ("suite", "sweep") if kind in content), None):
            raise PhysFedError(f"{path}: base: {name} is a {kind}; name an experiment")
        missing = _missing_data(content, origin.parent)
        if missing is None or name == file.base[-1]:
            return content, origin.parent.resolve(), tuple(notes)
        notes.append(f"{name} is passed over: its data are not there ({missing})")
    raise AssertionError("a base is given")


def _missing_data(content: Mapping[str, Any], folder: Path) -> Path | None:
    """Return the data folder of an experiment if it is not there."""
    data = content.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    dicom = source.get("dicom") if isinstance(source, dict) else None
    if not isinstance(dicom, str):
        return None
    found = Path(folder, Path(dicom).expanduser())
    return None if found.is_dir() else found


def _measure(content: dict[str, Any], file: SweepFile) -> None:
    """Let the experiment measure the optional metrics that are objectives."""
    wanted = [o.measured_by for o in map(find_objective, file.objectives) if o.optional]
    evaluation = content.setdefault("evaluation", {}) if wanted else None
    asked = evaluation.setdefault("metrics", []) if isinstance(evaluation, dict) else None
    if isinstance(asked, list):
        asked += [name for name in dict.fromkeys(wanted) if name not in asked]


def _check_objectives(sweep: Sweep) -> None:
    """Refuse a metric in a clinical window that the experiment does not have."""
    experiment = sweep.experiment({}, sweep.file.seeds[0])
    names = (*STANDARD, *experiment.evaluation.metrics)
    known = {name for name, *_ in measured(names, experiment.data.clinical_windows)}
    for name in sweep.file.objectives:
        if find_objective(name).measured_by and name not in known:
            raise PhysFedError(
                f"{sweep.path}: objectives: '{name}' is not measured: data.clinical_windows has no "
                "such window"
            )


def _check_rounds(sweep: Sweep) -> None:
    experiment = sweep.experiment({}, sweep.file.seeds[0])
    if experiment.data.validation_patients in (0, ()):
        raise PhysFedError(
            f"{sweep.path}: trials are compared on validation patients, and there are none: set "
            "data.validation_patients under 'settings'"
        )
    training, pruner = experiment.training, sweep.file.pruner
    if pruner.name != "none" and training.evaluate_every >= training.rounds:
        raise PhysFedError(
            f"{sweep.path}: the pruner sees a trial every training.evaluate_every = "
            f"{training.evaluate_every} rounds, and it has only {training.rounds}: lower it under "
            "'settings', or set pruner: none"
        )


def _check_space(sweep: Sweep) -> None:
    """Refuse a space of which some value makes no valid experiment."""
    file, seed = sweep.file, sweep.file.seeds[0]
    for key in file.space:
        if key in FIXED:
            raise PhysFedError(f"{sweep.path}: space.{key}: cannot be swept; {FIXED[key]}")
        if names_patients(key, file.space[key]):
            raise PhysFedError(
                f"{sweep.path}: space.{key}: a space that lists patients would show their ids in "
                "the tables of trials; list them under 'settings'"
            )
        if key == "training.rounds" and file.pruner.name != "none":
            raise PhysFedError(
                f"{sweep.path}: space.{key}: the pruner compares trials at the same round; set "
                "pruner: none"
            )
    for values in _corners(file.space):
        sweep.experiment(values, seed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(DRAWS):
        sweep.experiment(suggest(study.ask(), file.space), seed)


def names_patients(key: str, parameter: Parameter) -> bool:
    """Say whether some value of a parameter lists patients by id."""
    values = [{key: choice} for choice in parameter.choice or ()]
    return any(pseudonymous_keys(value) != value for value in values)


def _corners(space: Mapping[str, Parameter]) -> Iterable[dict[str, Any]]:
    """Yield every end of every parameter, with the first values of those that it depends on."""
    for key, parameter in space.items():
        for value in parameter.ends:
            values: dict[str, Any] = {}
            wanted = _ancestors(space, key) | {key: value}
            for other, of in space.items():
                if other in wanted:
                    values[other] = wanted[other]
                elif applies(of, values):
                    values[other] = of.ends[0]
            yield values


def _ancestors(space: Mapping[str, Parameter], key: str) -> dict[str, Any]:
    """Return values of other parameters under which a parameter is there."""
    found: dict[str, Any] = {}
    for other, wanted in space[key].when.items():
        found |= _ancestors(space, other) | {other: as_list(wanted)[0]}
    return found


def applies(parameter: Parameter, values: Values) -> bool:
    """Say whether a parameter's condition is met."""
    return all(
        other in values and values[other] in as_list(wanted)
        for other, wanted in parameter.when.items()
    )


def suggest(trial: optuna.Trial, space: Mapping[str, Parameter]) -> dict[str, Any]:
    """Let Optuna choose each parameter's value, in order; those that do not apply are left out."""
    values: dict[str, Any] = {}
    for key, parameter in space.items():
        if applies(parameter, values):
            values[key] = _suggest(trial, key, parameter)
    return values


def _suggest(trial: optuna.Trial, key: str, parameter: Parameter) -> Any:
    if parameter.choice is not None:
        names = choice_names(parameter.choice)
        return parameter.choice[names.index(trial.suggest_categorical(key, names))]
    low, high = parameter.ends
    if parameter.integer or parameter.log_integer:
        step = round(parameter.step or 1)
        return trial.suggest_int(key, low, high, step=step, log=parameter.log_integer is not None)
    log = parameter.log_uniform is not None
    return trial.suggest_float(key, low, high, step=parameter.step, log=log)


def choice_names(choices: Sequence[Any]) -> list[Any]:
    """Return choices as Optuna can store them: lists and groups of keys as JSON."""
    plain = (str, int, float, bool, type(None))
    return [value if isinstance(value, plain) else json.dumps(value) for value in choices]


def stored(space: Mapping[str, Parameter], values: Values) -> dict[str, Any]:
    """Return a trial's values as Optuna stores them."""
    return {
        key: choice_names([value])[0] if space[key].choice is not None else value
        for key, value in values.items()
    }


def restored(space: Mapping[str, Parameter], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that Optuna has stored for a trial, in the order of the space."""
    values: dict[str, Any] = {}
    for key, parameter in space.items():
        if key in params:
            value = params[key]
            if parameter.choice is not None:
                value = parameter.choice[choice_names(parameter.choice).index(value)]
            values[key] = value
    return values


def _get(content: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(content, list):
            content = content[int(part)] if part.isdigit() and int(part) < len(content) else None
        else:
            content = content.get(part) if isinstance(content, dict) else None
    return content


def _allows(parameter: Parameter, value: Any) -> bool:
    if parameter.choice is not None:
        return value in parameter.choice
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    low, high = parameter.ends
    steps = (value - low) / parameter.step if parameter.step else 0.0
    return bool(low <= value <= high and abs(steps - round(steps)) < 1e-9)

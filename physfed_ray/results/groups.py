"""Sort runs into methods and seeds, and refuse to mix what cannot be compared."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.front_end import FrontEndSpec
from physfed_ray.front_ends.registry import FRONT_ENDS
from physfed_ray.methods.registry import METHODS
from physfed_ray.models.registry import BACKBONES
from physfed_ray.results.classical import CLASSICAL_COLUMNS, CLASSICAL_FILE
from physfed_ray.results.runs import RunResults
from physfed_ray.rundir.data_record import difference, difference_over_seeds, hidden
from physfed_ray.rundir.long_table import LongTable

KINDS = {
    "generic": "Generic FL methods",
    "personalised": "Personalised FL methods",
    "bound": "Bounds",
}
SETTINGS_SPELT_OUT = 2  # of more that differ, a label names those that are not the default
_SETTINGS = ("method", "front_end", "backbone", "training", "federation", "reports")
_ADDED = {"training.objective.name": "mse"}
_BEFORE_FRONT_ENDS = {"front_end.name": "fbp", "front_end.kernel": "scanner"}
"""Keys that runs of earlier versions do not have, and what these runs did."""
_GONE = ("backbone.size", "–")
"""What such runs say of RED-CNN, which has no sizes."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        label: What its user calls it, or the method's title; with what tells it from other groups
            that would be called the same.
        runs: One a seed, in the order of the seeds.
    """

    label: str
    runs: tuple[RunResults, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds."""
        return [run.seed for run in self.runs]

    @property
    def settings(self) -> dict[str, str]:
        """Everything but data, clients and seed, by dotted key."""
        return _settings(self.runs[0])

    @property
    def images(self) -> str:
        """The fixed front end that made its low-dose images, in words; "" for the scanner's FBP."""
        keys = self.runs[0].experiment.get("front_end", "fbp")
        if not FrontEndSpec.model_validate(keys).make().prepares:
            return ""
        usual = _front_end_defaults(keys["name"])
        own = {k: v for k, v in self.settings.items() if k in usual and v != usual[k]}
        return ", ".join([keys["name"], *(f"{k.rsplit('.', 1)[-1]} {v}" for k, v in own.items())])

    @property
    def kind(self) -> str:
        """Its part of the tables: "generic", "personalised" or "bound"."""
        kind = str(self.runs[0].summary.get("group"))
        return kind if kind in KINDS else "personalised"

    @property
    def method(self) -> str:
        """The method's name in the registry."""
        return str(self.runs[0].experiment["method"]["name"])

    @property
    def backbone(self) -> str:
        """The imaging network's name in the registry."""
        return str(self.runs[0].experiment.get("backbone", {}).get("name", "red_cnn"))


def group_runs(runs: Sequence[RunResults], *, force: bool = False) -> list[Group]:
    """Group runs by method and settings.

    Args:
        runs: Finished runs.
        force: Compare runs of different data all the same.

    Returns:
        Generic methods first, then personalised ones and bounds, in the order of the registry,
        which is that of the paper; methods that are not registered come last by title.

    Raises:
        PhysFedError: A run did not finish, was on other data, or is there twice.
    """
    for run in runs:
        if not run.finished:
            raise PhysFedError(
                f"{run.directory.root} has not finished; resume it with --resume or leave it out"
            )
    if not force:
        _check_same_data(runs)
        check_same_patients(runs)
    found: dict[str, list[RunResults]] = {}
    for run in runs:
        found.setdefault(json.dumps(_settings(run), sort_keys=True), []).append(run)
    groups = [_group(members) for members in found.values()]
    groups.sort(key=_place)
    return [Group(label, g.runs) for label, g in zip(_labels(groups), groups, strict=True)]


def classical_runs(runs: Sequence[RunResults]) -> dict[str, dict[int, LongTable]]:
    """Return the scores of classical denoisers kept in run directories: title -> seed -> rows."""
    found: dict[str, dict[int, LongTable]] = {}
    for run in runs:
        table = run.directory.read_table(CLASSICAL_FILE, CLASSICAL_COLUMNS)
        for title in table.distinct("method"):
            found.setdefault(str(title), {}).setdefault(run.seed, table.where(method=title))
    return found


def _group(members: Sequence[RunResults]) -> Group:
    by_seed: dict[int, RunResults] = {}
    for run in members:
        if run.seed in by_seed:
            raise PhysFedError(
                f"{by_seed[run.seed].directory.root} and {run.directory.root} are the same method, "
                f"settings and seed ({run.seed}); leave one out"
            )
        by_seed[run.seed] = run
    return Group(
        members[0].label or members[0].title, tuple(by_seed[seed] for seed in sorted(by_seed))
    )


def full_names(groups: Sequence[Group]) -> list[str]:
    """Return the labels of groups, with the imaging network where there are several.

    A user's own label that no other group has is left as it is.
    """
    several = len({group.backbone for group in groups}) > 1
    labels = [group.label for group in groups]
    return [
        f"{group.label}, {backbone_title(group.backbone)}"
        if several and not (group.runs[0].label and labels.count(group.label) == 1)
        else group.label
        for group in groups
    ]


def backbone_title(name: str) -> str:
    """Return a backbone's name as its paper writes it."""
    return BACKBONES[name].title if name in BACKBONES else name


def _place(group: Group) -> tuple[int, int, str, str]:
    registered = list(METHODS)
    rank = registered.index(group.method) if group.method in METHODS else len(registered)
    return list(KINDS).index(group.kind), rank, group.runs[0].title, str(group.settings)


def _settings(run: RunResults) -> dict[str, str]:
    found = {
        key: value
        for part in _SETTINGS
        for key, value in flatten(run.experiment.get(part, {}), part)
        if (key, value) != _GONE
    }
    before = {} if "front_end.name" in found else _BEFORE_FRONT_ENDS
    return _ADDED | before | found


def _labels(groups: Sequence[Group]) -> list[str]:
    """Add to each title the settings in which the groups of that title on one backbone differ."""
    labels = []
    for group in groups:
        rivals = [
            g.settings for g in groups if (g.label, g.backbone) == (group.label, group.backbone)
        ]
        keys = dict.fromkeys(key for settings in rivals for key in settings)
        differing = [k for k in keys if len({settings.get(k) for settings in rivals}) > 1]
        usual = _front_end_defaults(group.settings.get("front_end.name", ""))
        differing = [
            k
            for k in differing
            if (k in group.settings or not k.startswith("front_end."))
            and (k not in usual or group.settings.get(k) != usual[k])
        ]
        if len(differing) > SETTINGS_SPELT_OUT:
            usual = _defaults(group.method)
            differing = [k for k in differing if group.settings.get(k) != usual.get(k)]
        words = [
            group.settings.get(key, "–")
            if key == "method.variant"
            else f"{key.removesuffix('.name').rsplit('.', 1)[-1]} {group.settings.get(key, '–')}"
            for key in sorted(differing, key=lambda key: key != "method.variant")
        ]
        labels.append(f"{group.label} ({', '.join(words)})" if words else group.label)
    return labels


def _defaults(method: str) -> dict[str, str]:
    """Return a method's own settings where they are not set, as they are printed."""
    if method not in METHODS:
        return {}
    fields = METHODS[method].Settings.model_fields
    return dict(flatten({name: field.default for name, field in fields.items()}, "method"))


def _front_end_defaults(name: str) -> dict[str, str]:
    """Return a front end's own settings where they are not set, as they are printed.

    Another front end has other keys, so that a label names those alone that were set.
    """
    if name not in FRONT_ENDS:
        return {}
    schema = FRONT_ENDS[name].Settings()
    return dict(flatten(schema.model_dump(mode="json"), "front_end"))


_FOLDERS = ("data.source.dicom", "data.source.pairs")


def _check_same_data(runs: Sequence[RunResults]) -> None:
    first = _data_key(runs[0])
    for run in runs[1:]:
        other = _data_key(run)
        for name in first | other:
            one, two = first.get(name), other.get(name)
            if one != two:
                raise PhysFedError(
                    f"{runs[0].directory.root} and {run.directory.root} differ in {name} "
                    f"({_short(one)} and {_short(two)}); compare runs of the same "
                    "data, or pass force to compare them all the same"
                )


def check_same_patients(runs: Sequence[RunResults]) -> None:
    """Refuse runs whose files ask for the same data, and whose data are not the same.

    Runs of one seed must have the same data; those of several seeds must have drawn theirs from
    the same patients. Runs of earlier versions are compared by the slices that they were tested on.

    Raises:
        PhysFedError: The data are not the same.
    """
    firsts: dict[int, RunResults] = {}
    for run in runs:
        first = firsts.setdefault(run.seed, run)
        if first.data is not None and run.data is not None:
            words = difference(first.data, run.data)
        else:
            words = _tested_otherwise(first, run)
        _refuse(first, run, words)
    recorded = [(run, run.data) for run in firsts.values() if run.data is not None]
    for run, data in recorded[1:]:
        first, theirs = recorded[0]
        _refuse(first, run, difference_over_seeds(theirs, data))


def _refuse(first: RunResults, run: RunResults, words: str) -> None:
    if words:
        raise PhysFedError(
            f"the data of {first.directory.root} and {run.directory.root} are not the same, though "
            f"their settings are ({words}); compare runs of the same data, or pass force to "
            "compare them all the same"
        )


def _tested_otherwise(first: RunResults, run: RunResults) -> str:
    def tested(run: RunResults) -> set[tuple[str, str]]:
        rows = run.slices.where(split="test/input", metric="psnr")
        return set(zip(rows.column("client"), rows.column("patient"), strict=True))

    gone, new = tested(first) - tested(run), tested(run) - tested(first)
    words = [
        f"{hidden({patient for _, patient in found})} {what}"
        for found, what in ((gone, "removed"), (new, "added"))
        if found
    ]
    return f"test: patients {' and '.join(words)}" if words else ""


def _short(value: object) -> str:
    return textwrap.shorten(str(value), 80, placeholder=" ...")


def _data_key(run: RunResults) -> dict[str, Any]:
    """Return what must be equal: data without places on a disk, and the protocols."""
    key = {}
    for name, value in flatten(run.experiment.get("data", {}), "data"):
        if name == "data.cache":
            continue
        key[name] = PurePath(value).name if name in _FOLDERS else value
    for part in ("clients", "unseen"):
        entries = run.experiment.get(part, ())
        key[part] = "; ".join(
            f"{e['id']}: {' '.join(map(_number, e['protocol'].values()))}" for e in entries
        )
    return key


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Turn nested mappings into dotted keys and printable values."""
    if isinstance(value, Mapping):
        return [
            entry
            for key, inner in value.items()
            for entry in flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return [e for k, item in enumerate(value) for e in flatten(item, f"{prefix}.{k + 1}")]
        return [(prefix, ", ".join(_word(item) for item in value) or "–")]
    return [(prefix, _word(value))]


def _word(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)

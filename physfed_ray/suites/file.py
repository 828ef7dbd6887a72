"""The keys of a suite file, and how it builds on an experiment or on another suite."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.explain import did_you_mean, shown
from physfed_ray.experiment.file import read_yaml
from physfed_ray.experiment.settings import LARGEST_SEED, LONGEST_NAME, MOST, NAME, Settings

SETTABLE = ("methods", "backbones", "seeds", "learning_rates", "runs")
"""Keys of a suite that a scale and ``--set`` may replace; every other key is the experiment's."""
GROUPS = ("data", "reports", "front_end", "backbone", "training", "federation")


def by_key(value: Any) -> Any:
    """Return ``{training: {rounds: 40}}`` as ``{training.rounds: 40}``, which says the same."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        nested = key in GROUPS and isinstance(entry, dict)
        flat |= {f"{key}.{k}": v for k, v in entry.items()} if nested else {str(key): entry}
    return flat


Keys = Annotated[dict[str, Any], BeforeValidator(by_key)]


def _choice(value: Any) -> Any:
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("give a name, or a group of keys with at least 'name'")
    label, settings = value.get("label", value["name"]), value.get("settings") or {}
    if not isinstance(label, str) or not label.strip() or len(label) > LONGEST_NAME:
        raise ValueError(
            f"'label' must be text of at most {LONGEST_NAME} characters, for example \"w/o "
            f'anatomy", not {shown(label)}'
        )
    if not isinstance(settings, dict):
        raise ValueError("'settings' must be a group of keys such as training.lr: 1e-3")
    keys = {key: entry for key, entry in value.items() if key not in ("label", "settings")}
    return {"label": label, "keys": keys, "settings": settings}


class Choice(Settings):
    """One of the methods or backbones: what the experiment's group becomes, and its label."""

    label: str
    keys: dict[str, Any]
    settings: Keys

    @property
    def given(self) -> str | None:
        """The label, None where it is the name that an entry has without one."""
        return None if self.label == self.keys["name"] else self.label

    @property
    def slug(self) -> str:
        """The label as part of a folder's name."""
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in self.label.strip())


Choices = Annotated[tuple[Annotated[Choice, BeforeValidator(_choice)], ...], Field(min_length=1)]


class LearningRates(Settings):
    """How each method's own learning rate is chosen before its seeds run."""

    grid: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        min_length=2, description="learning rates that are tried, the same for every method"
    )
    rounds: int | None = Field(
        None, ge=1, le=MOST, description="rounds of a trial; null: as many as a run has"
    )


class SuiteFile(Settings):
    """The keys of a suite file."""

    suite: str = Field(
        pattern=NAME, max_length=LONGEST_NAME, description="name of the suite and of its page"
    )
    base: str | None = Field(
        None, description="experiment file that every run starts from, or a suite to build on"
    )
    experiment: dict[str, Any] = Field(description="the experiment's keys, in the place of `base`")
    settings: Keys = Field(
        {}, description="keys of the experiment that differ in every run (training.rounds: 40)"
    )
    methods: Choices = Field(
        description="names, or {name: ..., label: ..., settings of the method ..., settings: "
        "{training.lr: ...}}"
    )
    backbones: Choices | None = Field(
        None, description="likewise; default: the experiment's own backbone"
    )
    seeds: (
        Annotated[tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...], Field(min_length=1)]
        | None
    ) = Field(
        None, description="the runs of each method on each backbone; default: the experiment's own"
    )
    learning_rates: LearningRates | None = Field(
        None, description="choose each method's learning rate by validation PSNR; null: do not"
    )
    scales: dict[str, Keys] = Field({}, description="named groups of keys for `--set scale=NAME`")
    runs: str | None = Field(
        None,
        pattern=NAME,
        max_length=LONGEST_NAME,
        description="folder of the runs; suites that name the same one share their runs",
    )

    @field_validator("methods", "backbones")
    @classmethod
    def _labels_differ(cls, value: tuple[Choice, ...] | None) -> tuple[Choice, ...] | None:
        seen: dict[str, int] = {}
        for place, choice in enumerate(value or ()):
            other = seen.setdefault(choice.slug, place)
            if other != place:
                raise ValueError(
                    f"entries {other} and {place} are both called '{choice.label}'; give one of "
                    "them another 'label'"
                )
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if len(set(value or ())) < len(value or ()):
            raise ValueError("the list names a seed twice")
        return value


def take(overrides: list[str], key: str) -> str | None:
    """Remove the overrides of a key, and return the last one's value."""
    found = [entry for entry in overrides if entry.partition("=")[0].strip() == key]
    for entry in found:
        overrides.remove(entry)
    return found[-1].partition("=")[2].strip() if found else None


def read_suite(
    path: Path, base: str | None, above: Sequence[Path] = ()
) -> tuple[dict[str, Any], Path]:
    """Return a suite's keys with those it builds on, and the file that holds the experiment.

    Args:
        path: The suite.
        base: Experiment file that takes the place of the one it starts from.
        above: The suites that build on this one.

    Raises:
        PhysFedError: A file is missing, or they do not fit together.
    """
    content = read_yaml(path)
    below = content.get("base")
    if below is None and base is None:
        if "experiment" not in content:
            raise PhysFedError(f"{path}: give 'base' (an experiment file) or 'experiment' (its "
                               "keys), from which every run starts")  # fmt: skip
        return content, path
    if below is not None:
        if not isinstance(below, str) or "experiment" in content:
            raise PhysFedError(f"{path}: give either 'base', the path of a file, or 'experiment'")
        file = path.parent / Path(below).expanduser()
        if file.resolve() in (path.resolve(), *above):
            raise PhysFedError(f"{path}: base: {below} is built on this very suite")
        found = read_yaml(file)
        if "suite" in found:
            inherited, origin = read_suite(file, base, (*above, path.resolve()))
            return {**inherited, **content}, origin
    if base is not None:
        file = path.parent / Path(base).expanduser()
        found = read_yaml(file)
        if "suite" in found:
            raise PhysFedError(f"--set base={base}: this is a suite; name an experiment")
    return {**content, "experiment": found}, file


def scaled(content: dict[str, Any], scale: str | None, path: Path) -> dict[str, Any]:
    """Put a scale's keys of the suite into place, and return its keys of the experiment."""
    if scale is None:
        return {}
    scales = content.get("scales") or {}
    if not isinstance(scales, dict) or not isinstance(scales.get(scale), dict):
        known = did_you_mean(scale, map(str, scales)) if scales else "it has no 'scales'"
        raise PhysFedError(f"{path}: there is no scale '{scale}'; {known}")
    chosen = scales[scale]
    for key in chosen:
        if key in SETTABLE:
            content[key] = chosen[key]
    rest: dict[str, Any] = by_key({k: v for k, v in chosen.items() if k not in SETTABLE})
    return rest

"""The keys of a sweep file."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.settings import LARGEST_SEED, LONGEST_NAME, MOST, NAME, Settings
from physfed_ray.metrics.registry import STANDARD
from physfed_ray.suites.file import Keys
from physfed_ray.sweep.objectives import find_objective

KINDS = ("uniform", "log_uniform", "integer", "log_integer", "choice")

Seeds = Annotated[tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...], Field(min_length=1)]


class Parameter(Settings):
    """What one key of the experiment may be: exactly one of the first five."""

    uniform: tuple[float, float] | None = Field(None, description="lowest and highest number")
    log_uniform: tuple[float, float] | None = Field(
        None, description="the same, evenly over orders of magnitude"
    )
    integer: tuple[int, int] | None = Field(None, description="lowest and highest whole number")
    log_integer: tuple[int, int] | None = Field(
        None, description="the same, evenly over orders of magnitude"
    )
    choice: tuple[Any, ...] | None = Field(None, min_length=2, description="a list of values")
    step: float | None = Field(
        None, gt=0, description="of `uniform` and `integer`: distance of values"
    )
    when: dict[str, Any] = Field(
        {},
        description="only where other parameters, which stand above, have this value or one of "
        "these: {method.name: [fedper, scan_physfed]}",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}")
        if self.choice is not None:
            if len({repr(value) for value in self.choice}) < len(self.choice):
                raise ValueError("the list has a value twice")
        else:
            low, high = self.ends
            if not low < high:
                raise ValueError(f"the first number must be below the second, not [{low}, {high}]")
            if given[0].startswith("log") and low <= 0:
                raise ValueError(f"a logarithmic range must be above 0, not [{low}, {high}]")
        if self.step is not None and given[0] not in ("uniform", "integer"):
            raise ValueError("'step' belongs to 'uniform' and 'integer'")
        if self.step is not None and self.integer is not None and self.step != round(self.step):
            raise ValueError(f"'step' of 'integer' must be a whole number, not {self.step:g}")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices, or the lowest and the highest value."""
        ranges = self.uniform or self.log_uniform or self.integer or self.log_integer
        return self.choice or ranges or ()

    @property
    def words(self) -> str:
        """What it may be, in words."""
        if self.choice is not None:
            return ", ".join(str(value) for value in self.choice)
        log = ", logarithmic" if self.log_uniform or self.log_integer else ""
        step = f", step {self.step:g}" if self.step else ""
        return f"{self.ends[0]:g} to {self.ends[1]:g}{log}{step}"


class Sampler(Settings):
    """How the next trial's values are proposed."""

    name: Literal["tpe", "gp", "random", "qmc", "nsga2"] = Field(
        "tpe",
        description="tpe: tree-structured Parzen estimators; gp: a Gaussian process; random; qmc: "
        "Sobol points; nsga2: evolution, for several objectives",
    )
    seed: int = Field(1, ge=0, le=2**32 - 1, description="of the proposals")
    startup_trials: int = Field(
        8, ge=1, le=MOST, description="of tpe and gp: random trials before the first that learns"
    )


class Pruner(Settings):
    """Which trials are stopped early."""

    name: Literal["asha", "median", "none"] = Field(
        "asha",
        description="asha: at rungs, each `reduction` times higher than the last, only the best "
        "go on; median: whoever is below the median of all others at the same round stops",
    )
    min_rounds: int = Field(
        5, ge=1, le=MOST, description="of asha: the first rung; of median: never before it"
    )
    reduction: int = Field(3, ge=2, le=MOST, description="of asha: one in so many goes on")
    startup_trials: int = Field(
        5, ge=0, le=MOST, description="of median: complete trials before the first is stopped"
    )


def _name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class SweepFile(Settings):
    """The keys of a sweep file."""

    sweep: str = Field(
        pattern=NAME, max_length=LONGEST_NAME, description="name of the sweep and of its study"
    )
    base: Annotated[tuple[str, ...], BeforeValidator(_list)] = Field(
        (),
        description="experiment file that every trial starts from; of several, the first whose "
        "data folder is there",
    )
    experiment: dict[str, Any] | None = Field(
        None, description="the experiment's keys, in the place of `base`"
    )
    settings: Keys = Field({}, description="keys of the experiment that differ in every trial")
    space: dict[str, Parameter] = Field(
        min_length=1, description="key of the experiment: what it may be"
    )
    objectives: Annotated[tuple[str, ...], BeforeValidator(_list), Field(min_length=1)] = Field(
        ("psnr",),
        description="a metric on validation patients after the last round, mean over clients "
        "and seeds (psnr, ssim, or any that `physfed metrics` prints), then, where wanted, "
        "others, or what a round or the network costs",
    )
    seeds: Seeds = Field((1,), description="of the runs of a trial, which run one after the other")
    trials: int = Field(40, ge=1, le=MOST, description="trials in all, failed ones included")
    concurrent: int | Literal["auto"] = Field(
        "auto", description="trials side by side; auto: as many as find room"
    )
    sampler: Annotated[Sampler, BeforeValidator(_name)] = Field(
        Sampler(), description="how values are proposed"
    )
    pruner: Annotated[Pruner, BeforeValidator(_name)] = Field(
        Pruner(), description="which trials are stopped early"
    )
    retries: int = Field(
        1, ge=0, le=MOST, description="times that a trial which fails is begun again"
    )
    final_seeds: Seeds = Field(
        (101, 102, 103),
        description="of the runs that test the best trial and the base; none of `seeds`",
    )

    @field_validator("concurrent")
    @classmethod
    def _at_least_one(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or auto")
        return value

    @field_validator("objectives")
    @classmethod
    def _quality_first(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            found = [find_objective(name) for name in value]
        except PhysFedError as error:
            raise ValueError(str(error)) from None
        if not found[0].measured_by:
            raise ValueError("the first must be a metric, such as psnr or ssim")
        if len(set(value)) < len(value):
            raise ValueError("the list names one twice")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.base) == (self.experiment is not None):
            raise ValueError("give either 'base' (an experiment file) or 'experiment' (its keys)")
        first = find_objective(self.objectives[0])
        if self.pruner.name != "none" and first.name not in STANDARD:
            raise ValueError(f"pruner: '{first.name}' is not followed during training, so that no "
                             "trial can be stopped early; set pruner: none")  # fmt: skip
        if len(self.objectives) > 1 and self.pruner.name != "none":
            raise ValueError("pruner: with several objectives no trial can be told to be hopeless "
                             "early; set pruner: none")  # fmt: skip
        if self.sampler.name == "nsga2" and len(self.objectives) == 1:
            raise ValueError("sampler: nsga2 is for several objectives")
        for name, seeds in (("seeds", self.seeds), ("final_seeds", self.final_seeds)):
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"{name}: the list names a seed twice")
        if twice := set(self.seeds) & set(self.final_seeds):
            raise ValueError(f"final_seeds: {min(twice)} is one of 'seeds'; what is chosen with a "
                             "seed must be tested with others")  # fmt: skip
        self._known_conditions()
        return self

    def _known_conditions(self) -> None:
        above: dict[str, Parameter] = {}
        for key, parameter in self.space.items():
            for other, wanted in parameter.when.items():
                choices = above[other].choice if other in above else None
                if choices is None:
                    raise ValueError(f"space.{key}.when: '{other}' must be a parameter with "
                                     "'choice' that stands above")  # fmt: skip
                for value in as_list(wanted):
                    if value not in choices:
                        raise ValueError(f"space.{key}.when: {value!r} is none of the choices of "
                                         f"'{other}'")  # fmt: skip
            above[key] = parameter


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as a list of itself."""
    return list(value) if isinstance(value, list | tuple) else [value]


def value_words(value: Any) -> str:
    """Return a parameter's value as a reader wants it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)

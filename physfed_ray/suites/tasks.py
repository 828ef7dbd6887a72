"""What of a suite is still to be done, in which order, and what must come before what."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from physfed_ray.experiment import Experiment
from physfed_ray.suites.state import Standing
from physfed_ray.suites.suite import Suite, SuiteRun, Variant

DATA = ("data", "clients", "unseen", "front_end", "reports", "seed")
"""Keys of an experiment that its prepared data depend on."""


@dataclass(frozen=True)
class SuiteTask:
    """The work of one process.

    Attributes:
        name: Names it to the user, and in the ``needs`` of others.
        experiment: What runs, or whose data are prepared.
        variant: The method that a run or trial belongs to; None for a preparation.
        run: The run or trial; None for a preparation.
        needs: Names of the tasks that must have ended before.
    """

    name: str
    experiment: Experiment
    variant: Variant | None = None
    run: SuiteRun | None = None
    needs: tuple[str, ...] = ()


def tasks(suite: Suite, now: Standing) -> Iterator[SuiteTask]:
    """Yield what is left of a suite: data right before several runs need them, trials, runs.

    The runs of a method whose learning rate is not chosen yet all wait for its trials, complete
    ones included: they were made with another rate if the choice turns out differently.
    """
    wanted = list(_wanted(suite, now))
    uses = Counter(data_key(run.experiment) for _, run, _ in wanted)
    prepared: dict[str, str] = {}
    for variant, run, needs in wanted:
        key = data_key(run.experiment)
        if key not in prepared and uses[key] > 1:  # a single run prepares its data itself
            prepared[key] = _data_name(run.experiment, prepared)
            yield SuiteTask(prepared[key], run.experiment)
        data = (prepared[key],) if key in prepared else ()
        yield SuiteTask(run.name, run.experiment, variant, run, (*data, *needs))


def _wanted(suite: Suite, now: Standing) -> Iterator[tuple[Variant, SuiteRun, tuple[str, ...]]]:
    unfinished = [v for v in suite.variants if not all(now.states[r.path].done for r in v.runs)]
    open_trials = {
        variant.name: [trial for trial in variant.trials if not now.states[trial.path].settled]
        for variant in unfinished
    }
    for variant in unfinished:
        for trial in open_trials[variant.name]:
            yield variant, trial, ()
    for runs in zip(*(variant.runs for variant in unfinished), strict=True):
        for variant, run in zip(unfinished, runs, strict=True):
            needs = tuple(trial.name for trial in open_trials[variant.name])
            if needs or not now.states[run.path].done:
                yield variant, run, needs


def data_key(experiment: Experiment) -> str:
    """Return what tells prepared data of one experiment from another's."""
    return experiment.model_dump_json(include=set(DATA))


def _data_name(experiment: Experiment, others: dict[str, str]) -> str:
    name = f"data of seed {experiment.seed}"
    taken = sum(other.startswith(name) for other in others.values())
    return f"{name} ({taken + 1})" if taken else name

"""The Optuna study of a sweep: what was tried, what it gave, and what is tried next.

The study is the one record of a sweep, in a file that ``optuna-dashboard`` opens. Every change is
in it before anything that depends on it happens, so that a killed sweep goes on from it. A run's
federation has its own checkpoints; a trial that was running goes on from its last round.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from physfed_ray.data.pseudonyms import pseudonymous_keys
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.differences import differences
from physfed_ray.seeds import derive_seed
from physfed_ray.sweep.file import Pruner, Sampler, SweepFile
from physfed_ray.sweep.objectives import find_objective
from physfed_ray.sweep.space import restored, stored, suggest

SETTINGS, ATTEMPTS, REASON, ROUNDS = "settings", "attempts", "reason", "rounds"
"""Names of user attributes: of the study, and of trials."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class SweepStudy:
    """A study with the sampler, the pruner and the objectives of a sweep.

    Args:
        file: The sweep's keys.
        path: File of the study; None keeps it in memory.
        settings: What an existing study must have been made with.
        saved: Called after changes that something else depends on.

    Raises:
        PhysFedError: The file's study was made with other settings, or the file is no study.
    """

    def __init__(
        self,
        file: SweepFile,
        path: Path | None,
        settings: Mapping[str, Any] | None = None,
        saved: Callable[[], None] = lambda: None,
    ) -> None:
        self._file, self._saved = file, saved
        storage = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            storage = _open(path)
        self.study = optuna.create_study(
            study_name=file.sweep,
            storage=storage,
            directions=[find_objective(name).direction for name in file.objectives],
            pruner=make_pruner(file.pruner),
            load_if_exists=True,
        )
        self._check(path, json.loads(json.dumps(settings or {})))

    def _check(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        before = self.study.user_attrs.get(SETTINGS)
        if before is None:
            self.study.set_metric_names(list(self._file.objectives))
            self.study.set_user_attr(SETTINGS, settings)
            return
        changed = [k for k in settings if k != "experiment" and before.get(k) != settings[k]]
        if "experiment" in settings:
            old = pseudonymous_keys(before.get("experiment", {}))
            changed += differences(old, settings["experiment"])
        if changed:
            raise PhysFedError(
                f"{path} was made with other settings ({', '.join(changed)}): resume with the same "
                "sweep file, or choose another --out"
            )
        if before != settings:  # keys that decide nothing, or that another version wrote
            self.study.set_user_attr(SETTINGS, settings)

    def enqueue(self, values: Mapping[str, Any]) -> None:
        """Make these values the first trial's, if there is none yet."""
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(stored(self._file.space, values))

    def ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        """Return the next trial and its values.

        A trial's random numbers depend on its number, so that a sweep which was interrupted does
        not propose again what it began with.
        """
        self.study.sampler = make_sampler(self._file.sampler, len(self.trials))
        trial = self.study.ask()
        values = suggest(trial, self._file.space)
        self._saved()
        return trial, values

    def running(self) -> list[tuple[optuna.Trial, dict[str, Any]]]:
        """Return the trials that a stopped sweep has left, and their values."""
        found = []
        for frozen in [trial for trial in self.trials if trial.state == TrialState.RUNNING]:
            self.study.sampler = make_sampler(self._file.sampler, frozen.number)
            trial = optuna.Trial(self.study, frozen._trial_id)
            found.append((trial, suggest(trial, self._file.space)))
        return found

    def report(self, trial: optuna.Trial, value: float, rounds: int) -> bool:
        """Note a trial's value after some rounds; return whether it is to be stopped."""
        if len(self._file.objectives) > 1:
            return False
        known = self.frozen(trial.number).intermediate_values
        if rounds not in known:
            trial.report(value, rounds)
        return trial.should_prune()

    def tell(
        self,
        trial: optuna.Trial,
        state: TrialState,
        values: Sequence[float] | None = None,
        reason: str = "",
    ) -> None:
        """End a trial.

        Args:
            trial: The trial.
            state: COMPLETE, PRUNED or FAIL.
            values: Of the objectives, for COMPLETE.
            reason: Why it was stopped or failed.
        """
        if reason:
            trial.set_user_attr(REASON, reason)
        self.study.tell(trial, values, state)
        self._saved()

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, those that wait their turn included."""
        return self.study.get_trials(deepcopy=False)

    def frozen(self, number: int) -> FrozenTrial:
        """Return a trial as it stands."""
        return next(trial for trial in self.trials if trial.number == number)

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return a trial's values as the experiment takes them."""
        return restored(self._file.space, trial.params)

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of these states."""
        return sum(trial.state in states for trial in self.trials)

    def best(self) -> FrozenTrial | None:
        """Return the complete trial with the best first objective, the first of equally good ones.

        Of several objectives, one on the Pareto front: nothing is better in all of them.
        """
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(done, key=lambda t: (*_worth(t, self._file), -t.number), default=None)

    def front(self) -> list[FrozenTrial]:
        """Return the trials of the Pareto front, the best first objective first."""
        found = self.study.best_trials if len(self._file.objectives) > 1 else []
        return sorted(found, key=lambda trial: (-_worth(trial, self._file)[0], trial.number))


def _worth(trial: FrozenTrial, file: SweepFile) -> tuple[float, ...]:
    """Return the objectives so that more is better."""
    return tuple(
        find_objective(name).worth(value)
        for name, value in zip(file.objectives, trial.values, strict=True)
    )


def _open(path: Path) -> optuna.storages.RDBStorage:
    try:
        return optuna.storages.RDBStorage(
            f"sqlite:///{path.absolute()}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
    except Exception as error:
        raise PhysFedError(
            f"{path} cannot be opened as an Optuna study ({str(error).splitlines()[0]}): delete it "
            "or choose another --out"
        ) from error


def make_sampler(settings: Sampler, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that proposes a trial.

    Args:
        settings: The sweep's sampler.
        number: Of the trial, on which its random numbers depend.
    """
    seed = derive_seed(settings.seed, "sweep", number) % 2**32
    startup = settings.startup_trials
    match settings.name:
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "qmc":  # its points go by the study's own count, and need the one seed
            return optuna.samplers.QMCSampler(seed=settings.seed, scramble=True)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case _:
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, group=True, multivariate=True
            )


def make_pruner(settings: Pruner) -> optuna.pruners.BasePruner:
    """Return the pruner; its steps are rounds, over the seeds of a trial in turn."""
    match settings.name:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner(
                n_startup_trials=settings.startup_trials, n_warmup_steps=settings.min_rounds - 1
            )
        case _:
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=settings.min_rounds, reduction_factor=settings.reduction
            )

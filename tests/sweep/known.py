"""A function with a known optimum that stands for a federation, and sweeps over it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from physfed_ray.sweep.file import SweepFile
from physfed_ray.sweep.study import ROUNDS, SweepStudy

OPTIMUM = 44.0
ROUNDS_OF_A_RUN = 20
SPACE = {
    "method.tau": {"log_uniform": [1e-6, 1]},
    "method.hidden_dim": {"log_integer": [16, 1024]},
    "method.code_dim": {"choice": [32, 64, 128]},
    "training.lr": {"log_uniform": [1e-4, 1e-2]},
}


def psnr(values: Mapping[str, Any]) -> float:
    """44 dB at tau = 1e-4, hidden_dim = 256, code_dim = 64 and lr = 1.5e-3, less elsewhere."""
    tau = math.log10(values["method.tau"] / 1e-4) / 6
    hidden = math.log2(values["method.hidden_dim"] / 256) / 6
    lr = math.log10(values["training.lr"] / 1.5e-3)
    code = {32: 0.3, 64: 0.0, 128: 0.1}[values["method.code_dim"]]
    return OPTIMUM - 3 * tau**2 - 2 * hidden**2 - 2 * lr**2 - code


def settings(**keys: Any) -> SweepFile:
    """Return a sweep file over the function's parameters."""
    content = {"sweep": "known", "base": "x.yaml", "space": SPACE, "pruner": "none"} | keys
    return SweepFile.model_validate(content)


def run(file: SweepFile, path: Path | None = None, trials: int | None = None) -> SweepStudy:
    """Run trials of a study one after the other, up to so many in all."""
    study = SweepStudy(file, path)
    left = study.running()
    while study.count(TrialState.COMPLETE, TrialState.PRUNED) < (trials or file.trials):
        trial, values = left.pop(0) if left else study.ask()
        run_trial(study, trial, values)
    return study


def run_trial(study: SweepStudy, trial: Any, values: Mapping[str, Any]) -> None:
    """Let a trial's score rise over its rounds, as that of a network in training."""
    for rounds in range(1, ROUNDS_OF_A_RUN):
        if study.report(trial, psnr(values) - 4 * math.exp(-rounds / 6), rounds):
            trial.set_user_attr(ROUNDS, rounds)
            study.tell(trial, TrialState.PRUNED, reason=f"after {rounds} rounds")
            return
    trial.set_user_attr(ROUNDS, ROUNDS_OF_A_RUN)
    study.tell(trial, TrialState.COMPLETE, [psnr(values)])


def best(study: SweepStudy) -> float:
    """Return the best trial's score."""
    found = study.best()
    assert found is not None
    return float(found.values[0])


def rounds_of(study: SweepStudy) -> int:
    """Return the rounds of all trials."""
    return sum(trial.user_attrs[ROUNDS] for trial in study.trials)

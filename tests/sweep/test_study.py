"""The study: what is proposed, stopped, kept, and found, on a function with a known optimum."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.sweep.study import SweepStudy
from tests.sweep import known

SEEDS = range(1, 6)


def test_tpe_is_at_least_as_good_as_random_and_near_the_optimum() -> None:
    def found(name: str) -> np.ndarray:
        files = [known.settings(sampler={"name": name, "seed": s}, trials=40) for s in SEEDS]
        return np.array([known.best(known.run(file)) for file in files])

    tpe, random = found("tpe"), found("random")
    assert np.all(tpe >= random)
    assert np.all(tpe > known.OPTIMUM - 0.15)
    assert (tpe - random).mean() > 0.05


def test_pruning_saves_rounds_and_loses_nothing_beyond_the_spread() -> None:
    pruner = {"name": "asha", "min_rounds": 3, "reduction": 3}
    cut, whole = [], []
    for seed in SEEDS:
        keys = {"sampler": {"name": "tpe", "seed": seed}, "trials": 40}
        cut.append(known.run(known.settings(pruner=pruner, **keys)))
        whole.append(known.run(known.settings(**keys)))
    saved = 1 - sum(map(known.rounds_of, cut)) / sum(map(known.rounds_of, whole))
    lost = np.mean([known.best(s) for s in whole]) - np.mean([known.best(s) for s in cut])
    assert saved >= 0.4
    assert lost <= np.std([known.best(s) for s in whole], ddof=1)


@pytest.mark.parametrize("name", ["tpe", "random", "gp"])
def test_an_interrupted_study_proposes_what_an_undisturbed_one_does(
    name: str, tmp_path: Path
) -> None:
    file = known.settings(sampler={"name": name, "startup_trials": 3}, pruner="asha")
    whole = known.run(file, trials=6)
    known.run(file, tmp_path / "study.db", trials=3)
    left = SweepStudy(file, tmp_path / "study.db")  # a fourth is asked for, and then killed
    left.ask()
    again = known.run(file, tmp_path / "study.db", trials=6)
    assert [t.params for t in again.trials] == [t.params for t in whole.trials]
    assert [t.state for t in again.trials] == [t.state for t in whole.trials]
    assert [t.intermediate_values for t in again.trials] == [
        t.intermediate_values for t in whole.trials
    ]


def test_random_trials_of_one_study_differ() -> None:
    study = known.run(known.settings(sampler="random", trials=12))
    assert len({trial.params["method.tau"] for trial in study.trials}) == 12


def test_the_base_s_values_are_the_first_trial_s(tmp_path: Path) -> None:
    file = known.settings(pruner="asha")
    own = {"method.tau": 1e-4, "method.hidden_dim": 256, "method.code_dim": 64,
           "training.lr": 1.5e-3}  # fmt: skip
    for _ in range(2):  # also where the sweep was killed before it began the trial
        study = SweepStudy(file, tmp_path / "study.db")
        study.enqueue(own)
    trial, values = study.ask()
    assert (trial.number, values) == (0, own)
    assert study.ask()[1] != own


def test_of_several_objectives_the_front_is_kept_and_the_best_lies_on_it() -> None:
    file = known.settings(objectives=["psnr", "bytes_per_round"])
    study = SweepStudy(file, None)
    for values in ([40.0, 5.0], [42.0, 9.0], [42.0, 8.0], [39.0, 6.0], [41.0, 5.5]):
        trial, _ = study.ask()
        assert not study.report(trial, values[0], 1)  # Optuna cannot prune here
        study.tell(trial, TrialState.COMPLETE, values)
    found = study.best()
    assert found is not None
    assert found.number == 2
    assert [trial.number for trial in study.front()] == [2, 4, 0]


def test_a_study_of_another_sweep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    SweepStudy(known.settings(), path, {"space": {"a": (1, 2)}, "seeds": (1,)})
    SweepStudy(known.settings(trials=99), path, {"space": {"a": (1, 2)}, "seeds": (1,)})
    with pytest.raises(PhysFedError, match=r"other settings \(space\)"):
        SweepStudy(known.settings(), path, {"space": {"a": (1, 3)}, "seeds": (1,)})
    path.write_bytes(b"not a study")
    with pytest.raises(PhysFedError, match="cannot be opened as an Optuna study"):
        SweepStudy(known.settings(), path)


def test_a_study_goes_on_with_another_quorum_and_after_another_version(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(
        "name: base\ndata: {source: {phantom: {patients: 4, slices: 1}}}\n"
        "clients: 'paper-[12]'\nmethod: {name: fedavg}\n"
    )

    def settings(*overrides: str) -> dict[str, Any]:
        return {"experiment": load_experiment(base, overrides).model_dump(mode="json")}

    path, old = tmp_path / "study.db", settings()
    del old["experiment"]["evaluation"]
    old["experiment"]["training"]["gone"] = 1
    SweepStudy(known.settings(), path, old)
    lower = settings("federation.quorum=0.5")
    assert SweepStudy(known.settings(), path, lower).study.user_attrs["settings"] == lower
    with pytest.raises(PhysFedError, match=r"other settings \(training.lr\)"):
        SweepStudy(known.settings(), path, settings("training.lr=0.5"))


def test_the_file_is_a_study_that_optuna_opens(tmp_path: Path) -> None:
    known.run(known.settings(), tmp_path / "study.db", trials=3)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.best_value == max(trial.value for trial in study.trials)
    assert study.metric_names == ["psnr"]

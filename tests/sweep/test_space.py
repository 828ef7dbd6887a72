"""Sweep files: what is refused before anything runs, and what values make of the base."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from physfed_ray.cli import main
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.sweep.file import SweepFile
from physfed_ray.sweep.space import load_sweep, restored, stored, suggest
from tests.sweep.conftest import TINY, MakeSweep

BOTH = "space.method.name={choice: [scan_physfed, fedper]}"
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("space.method.tauu={uniform: [0, 1]}", "method.tauu: unknown key; did you mean 'tau'"),
        ("space.training.lr={uniform: [1e-4, 2]}", r"lr = 2\.0.*training.lr: must be less than 1"),
        ("space.training.batch_size={integer: [0, 4]}", "training.batch_size: must be greater"),
        ("space.backbone.name={choice: [red_cnn, unet]}", "backbone"),
        ("space.method.tau={uniform: [1, 0]}", "first number must be below the second"),
        ("space.method.tau={log_uniform: [0, 1]}", "logarithmic range must be above 0"),
        ("space.method.tau={uniform: [0, 1], choice: [1, 2]}", "exactly one of uniform"),
        ("space.method.tau={choice: [1, 1]}", "a value twice"),
        ("space.method.tau={log_uniform: [1, 2], step: 1}", "'step' belongs to"),
        ("space.method.tau={normal: [1, 2]}", "unknown key; .*log_uniform"),
        ("space.method.tau={uniform: [0, 1], when: {a: 1}}", "'a' must be a parameter with"),
        ("space.seed={integer: [1, 9]}", "cannot be swept; use 'seeds'"),
        ("space.data.test_patients={choice: [1, 2]}", "different patients cannot be compared"),
        ("space.clients.0.patients={choice: [[A], [B]]}", "list them under 'settings'"),
        ("data.validation_patients=0", "trials are compared on validation patients"),
        ("objectives=[bytes_per_round]", "the first must be a metric, such as psnr"),
        ("objectives=[psnr, flops]", "objectives: unknown objective 'flops'; .*bytes_per_round"),
        ("objectives=[mtf50_120hu_per_mm]", "'mtf50_120hu_per_mm' is measured on a phantom"),
        ("objectives=[nps_mean_per_mm]", "'nps_mean_per_mm' has no better direction"),
        ("objectives=['psnr[0,80]']", r"'psnr\[0,80\]' is not measured: data.clinical_windows"),
        ("final_seeds=[1]", "1 is one of 'seeds'"),
        ("concurrent=0", "concurrent: must be at least 1, or auto"),
        ("sampler=nsga2", "nsga2 is for several objectives"),
        ("sampler=grid", "sampler.name: must be 'tpe'"),
        ("settings={training.rounds: none}", "training.rounds: must be a whole number"),
        ("trails=3", "trails: unknown key"),
    ],
)
def test_mistakes_are_named_before_anything_runs(
    make_sweep: MakeSweep, override: str, problem: str
) -> None:
    with pytest.raises(PhysFedError, match=problem):
        make_sweep(override)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["pruner=asha", "objectives=[psnr, bytes_per_round]"], "set pruner: none"),
        (["pruner=asha", "objectives=fsim"], "'fsim' is not followed during training"),
        (["pruner=asha", "training.evaluate_every=4"], "it has only 4"),
        (["pruner=asha", "space.training.rounds={integer: [3, 5]}"], "at the same round"),
        # valid by itself, but not with every value of the other
        (["space.training.patch={choice: [32, 48]}", "space.data.image_size={choice: [32, 64]}"],
         "training.patch .48. exceeds"),
        ([BOTH], "unknown key; .*with method|method.tau: unknown key"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(
    make_sweep: MakeSweep, overrides: list[str], problem: str
) -> None:
    with pytest.raises(PhysFedError, match=problem):
        make_sweep(*overrides)


def test_a_mistake_is_one_sentence_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "out"
    wrong = "space.method.tauu={uniform: [0, 1]}"
    assert main(["sweep", str(tmp_path / "tiny.yaml"), "--out", str(out), "--set", wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


def test_a_sweep_is_no_experiment_and_an_experiment_no_sweep(make_sweep: MakeSweep) -> None:
    path = make_sweep().path
    with pytest.raises(PhysFedError, match="is a sweep, which `physfed sweep` takes"):
        load_experiment(path)
    with pytest.raises(PhysFedError, match="is no sweep"):
        load_sweep(EXPERIMENTS / "quickstart.yaml")


CONDITIONAL = """
  method.name: {choice: [scan_physfed, fedprox, fedavg]}
  method.tau: {log_uniform: [1e-6, 1], when: {method.name: scan_physfed}}
  method.mu: {log_uniform: [1e-6, 1], when: {method.name: [fedprox]}}
  training.lr: {log_uniform: [1e-4, 1e-2]}
"""


def conditional(make_sweep: MakeSweep) -> Any:
    before, after = TINY.split("space:")[0], "trials:" + TINY.split("trials:")[1]
    return make_sweep(text=f"{before}space:{CONDITIONAL}{after}")


def test_conditional_parameters_are_there_only_where_they_apply(make_sweep: MakeSweep) -> None:
    sweep = conditional(make_sweep)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    keys: dict[str, set[str]] = {}
    for _ in range(40):
        values = suggest(study.ask(), sweep.file.space)
        keys.setdefault(values["method.name"], set()).update(values)
        experiment = sweep.experiment(values, 7)
        assert experiment.seed == 7
        assert experiment.training.lr == values["training.lr"]
    common = {"method.name", "training.lr"}
    assert keys == {
        "scan_physfed": common | {"method.tau"},
        "fedprox": common | {"method.mu"},
        "fedavg": common,
    }


def test_choices_of_any_kind_survive_the_storage() -> None:
    choices = [[43, 50], {"a": 1}, None, True, "x", 1.5]
    keys = {"sweep": "x", "base": "y", "space": {"k": {"choice": choices}}}
    space = SweepFile.model_validate(keys).space
    for value in choices:
        kept = stored(space, {"k": value})
        assert isinstance(kept["k"], str | float | bool | None)
        assert restored(space, kept) == {"k": value}


def test_the_base_s_values_are_found_where_they_lie_in_the_space(make_sweep: MakeSweep) -> None:
    assert make_sweep().base_values() == {
        "method.tau": 1e-4, "method.hidden_dim": 256, "training.lr": 1e-3,
    }  # fmt: skip
    assert make_sweep("training.lr=0.05").base_values() is None
    assert make_sweep("method.hidden_dim=64").base_values() is None
    stepped = "space={training.lr: {uniform: [0.0005, 0.002], step: 0.0005}}"
    assert make_sweep(stepped).base_values() == {"training.lr": 1e-3}
    assert make_sweep(stepped, "training.lr=0.0012").base_values() is None


def test_a_base_without_its_data_is_passed_over(make_sweep: MakeSweep, tmp_path: Path) -> None:
    experiment = TINY.split("experiment:")[1].split("space:")[0].replace("\n  ", "\n")
    here = tmp_path / "phantoms.yaml"
    here.write_text(experiment)
    there = tmp_path / "real.yaml"
    there.write_text(experiment.replace("{phantom: {patients: 4, slices: 1}}", "{dicom: nowhere}"))
    tail = "space:" + TINY.split("space:")[1]
    sweep = make_sweep(text=f"sweep: tiny\nbase: [real.yaml, phantoms.yaml]\n{tail}")
    assert sweep.experiment({}, 1).data.source.phantom is not None
    assert "real.yaml is passed over" in sweep.notes[0]
    (tmp_path / "nowhere").mkdir()
    again = load_sweep(sweep.path)
    assert again.experiment({}, 1).data.source.dicom == tmp_path / "nowhere"
    assert not again.notes


@pytest.mark.parametrize("name", ["sweep_small", "sweep_tau_hidden"])
def test_the_project_s_sweeps_are_valid_and_begin_at_their_base(name: str) -> None:
    sweep = load_sweep(EXPERIMENTS / f"{name}.yaml")
    assert sweep.base_values() is not None
    assert "method.tau" in sweep.file.space


def test_the_study_and_the_best_trial_name_no_patient(make_sweep: MakeSweep) -> None:
    sweep = make_sweep("data.test_patients=['phantom-03']")
    assert sweep.experiment({}, 1).data.test_patients == ("phantom-03",)
    kept = str(sweep.settings())
    assert "phantom-03" not in kept
    assert "pseudonym:" in kept

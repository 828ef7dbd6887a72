"""A suite file: what it expands to, what overrides what, and what is refused in which words."""

from pathlib import Path

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.suites.suite import Suite, is_suite, load_suite

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BASE = """
name: base
data:
  source: {phantom: {patients: 5, slices: 2}}
  test_patients: 1
  validation_patients: 1
  image_size: 64
  cache: cache
clients: "paper-[12]"
backbone: {channels: 8}
method: {name: local}
training: {rounds: 10, batch_size: 2, schedule: cosine}
"""
SUITE = """
suite: two
base: base.yaml
methods:
  - fedavg
  - {label: w/o anatomy, name: scan_physfed, anatomy: false}
seeds: [1, 4]
scales:
  small:
    seeds: [7]
    data: {image_size: 32}
    training.rounds: 3
"""
GRID = "learning_rates: {grid: [3e-3, 1e-3], rounds: 2}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def load(folder: Path, text: str = SUITE, *overrides: str) -> Suite:
    (folder / "suite.yaml").write_text(text)
    return load_suite(folder / "suite.yaml", overrides)


def paths(suite: Suite) -> list[str]:
    return [run.path for run in suite.runs]


def test_every_method_gets_every_seed_and_a_name_of_its_own(folder: Path) -> None:
    suite = load(folder)
    assert suite.folder == "two"
    assert paths(suite) == [
        "runs/fedavg-red_cnn-seed1",
        "runs/w_o_anatomy-red_cnn-seed1",
        "runs/fedavg-red_cnn-seed4",
        "runs/w_o_anatomy-red_cnn-seed4",
    ]
    assert [variant.label for variant in suite.variants] == ["fedavg", "w/o anatomy"]
    ablation = suite.variants[1].runs[1].experiment
    assert ablation.seed == 4
    assert ablation.method.name == "scan_physfed"
    assert ablation.method.settings.anatomy is False
    assert [run.experiment.label for run in suite.runs[:2]] == [None, "w/o anatomy"]
    assert ablation.data.cache == folder / "cache"  # relative to the file that says so


def test_runs_differ_in_method_and_seed_alone(folder: Path) -> None:
    """Equal seeds mean equal initial weights and batches, so this is all that comparison needs."""
    for seed, pair in zip(
        (1, 4), zip(*(v.runs for v in load(folder).variants), strict=True), strict=True
    ):
        contents = [run.experiment.model_dump(exclude={"method", "label"}) for run in pair]
        assert contents[0] == contents[1]
        assert contents[0]["seed"] == seed


def test_backbones_multiply_the_runs(folder: Path) -> None:
    text = SUITE + "backbones: [red_cnn, {label: wide, name: red_cnn, channels: 24}]\n"
    suite = load(folder, text)
    assert [v.name for v in suite.variants] == [
        "fedavg-red_cnn", "w_o_anatomy-red_cnn", "fedavg-wide", "w_o_anatomy-wide",
    ]  # fmt: skip
    assert len(suite.runs) == 8
    assert suite.variants[2].label == "fedavg, wide"
    assert suite.variants[2].runs[0].experiment.backbone.settings.channels == 24
    assert suite.variants[0].runs[0].experiment.backbone.settings.channels == 96  # not the base's 8


def test_a_scale_changes_the_suite_and_every_run(folder: Path) -> None:
    suite = load(folder, SUITE, "scale=small")
    assert suite.folder == "two-small"
    assert [run.experiment.seed for run in suite.runs] == [7, 7]
    for run in suite.runs:
        assert run.experiment.data.image_size == 32
        assert run.experiment.training.rounds == 3
        assert run.experiment.training.batch_size == 2  # a group in a scale is laid over the base's


def test_the_order_is_settings_scale_entry_command_line(folder: Path) -> None:
    text = SUITE + "settings: {training.rounds: 5, training.lr: 0.1}\n"
    text = text.replace("  - fedavg", "  - {name: fedavg, settings: {training: {rounds: 4}}}")
    suite = load(folder, text, "scale=small", "training.batch_size=6", "seeds=[2]")
    assert [run.experiment.training.rounds for run in suite.runs] == [4, 3]
    assert {run.experiment.training.lr for run in suite.runs} == {0.1}
    assert {run.experiment.training.batch_size for run in suite.runs} == {6}
    assert [run.experiment.seed for run in suite.runs] == [2, 2]


def test_trials_are_the_first_seed_at_each_rate_ascending(folder: Path) -> None:
    fixed = GRID + SUITE.replace("- fedavg", "- {name: fedavg, settings: {training.lr: 5e-4}}")
    fedavg, ablation = load(folder, fixed).variants
    assert fedavg.trials == ()  # its rate is given
    assert fedavg.runs[0].experiment.training.lr == 5e-4
    assert [trial.path for trial in ablation.trials] == [
        "learning_rates/w_o_anatomy-red_cnn-lr0.001",
        "learning_rates/w_o_anatomy-red_cnn-lr0.003",
    ]
    for trial, lr in zip(ablation.trials, (1e-3, 3e-3), strict=True):
        assert trial.experiment.seed == 1
        assert trial.experiment.training.lr == lr
        assert trial.experiment.training.rounds == 2
    assert ablation.runs[0].at(3e-3).experiment.training.lr == 3e-3
    assert load(folder, GRID + SUITE, "learning_rates=null").variants[1].trials == ()


def test_a_suite_on_a_suite_takes_over_what_it_does_not_say(folder: Path) -> None:
    (folder / "first.yaml").write_text(SUITE + GRID)
    text = "suite: second\nbase: first.yaml\nruns: two\nmethods: [fedper]\n"
    suite = load(folder, text, "scale=small")
    assert suite.name == "second"
    assert suite.folder == "two-small"
    assert paths(suite) == ["runs/fedper-red_cnn-seed7"]
    assert len(suite.variants[0].trials) == 2


def test_another_experiment_can_take_the_place_of_the_base(folder: Path) -> None:
    (folder / "mine.yaml").write_text(BASE.replace("image_size: 64", "image_size: 96"))
    (folder / "first.yaml").write_text(SUITE)
    text = "suite: second\nbase: first.yaml\n"
    for file in (SUITE, text):
        suite = load(folder, file, "base=mine.yaml")
        assert {run.experiment.data.image_size for run in suite.runs} == {96}


def test_an_experiment_may_stand_inside(folder: Path) -> None:
    indented = BASE.strip().replace("\n", "\n  ")
    suite = load(folder, f"suite: inline\nexperiment:\n  {indented}\nmethods: [fedavg, fedper]\n")
    assert paths(suite) == ["runs/fedavg-red_cnn-seed1", "runs/fedper-red_cnn-seed1"]
    assert suite.runs[0].experiment.data.image_size == 64


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("fedavg", "fedavgg"), "did you mean 'fedavg'"),
        (("anatomy: false", "anatomyy: false"), "w/o anatomy: method.anatomyy: unknown key"),
        (("seeds: [1, 4]", "seeds: [1, 1]"), "seeds: the list names a seed twice"),
        (("seeds: [1, 4]", "seeds: []"), "seeds: must be a list of at least 1"),
        (("seeds: [1, 4]", "sedes: [1, 4]"), "did you mean 'seeds'"),
        (("methods:", "settings: {training.round: 3}\nmethods:"), "training.round: unknown key"),
        (("methods:", "settings: {seed: 3}\nmethods:"), "seed: in a suite, 'seeds' decides"),
        (("methods:", "settings: {data: 3}\nmethods:"), "data: must be a group of keys"),
        (("- fedavg", "- {label: fedavg}"), "methods.0: give a name"),
        (("- fedavg", "- scan_physfed\n  - scan_physfed"), "both called 'scan_physfed'"),
        (("- fedavg", "- {label: x, name: scan_physfed, anatomy: false}"),
         "'x' and 'w/o anatomy' are the same runs"),
        (("base: base.yaml\n", ""), "give 'base' (an experiment file) or 'experiment'"),
        (("base: base.yaml", "base: nowhere.yaml"), "there is no experiment file"),
        (("base: base.yaml", "base: suite.yaml"), "built on this very suite"),
        (("base: base.yaml", "base: base.yaml\nexperiment: {}"), "give either 'base'"),
        (("scales:", GRID + "settings: {training.lr: 1e-3}\nscales:"),
         "training.lr: in a suite, 'learning_rates' decides"),
        (("scales:", "learning_rates: {grid: [1e-3]}\nscales:"),
         "learning_rates.grid: must be a list of at least 2"),
        (("scales:", GRID + "settings: {data.validation_patients: 0}\nscales:"),
         "set data.validation_patients"),
        (("scales:", "backbones: [red_cnm]\nscales:"), "unknown backbone 'red_cnm'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_that_names_the_file(
    folder: Path, change: tuple[str, str], problem: str
) -> None:
    assert change[0] in SUITE
    with pytest.raises(PhysFedError) as caught:
        load(folder, SUITE.replace(*change))
    text = str(caught.value)
    assert problem in text
    assert "\n" not in text
    assert "suite.yaml" in text or "nowhere.yaml" in text


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("scale=smal", "did you mean 'small'"),
        ("method.name=fedper", "method.name: in a suite, 'methods' decides"),
        ("training.rounds=none", "fedavg: training.rounds: must be a whole number"),
        ("method.anatomy=true", "fedavg: method.anatomy: unknown key"),
        ("base=suite.yaml", "this is a suite"),
        ("rounds", "write key=value"),
    ],
)
def test_mistakes_on_the_command_line_are_named(folder: Path, override: str, problem: str) -> None:
    with pytest.raises(PhysFedError, match=problem):
        load(folder, SUITE, override)


def test_a_suite_is_no_experiment(folder: Path) -> None:
    load(folder)
    assert is_suite(folder / "suite.yaml")
    assert not is_suite(folder / "base.yaml")
    with pytest.raises(PhysFedError, match=r"suite\.yaml is a suite, which `physfed run`"):
        load_experiment(folder / "suite.yaml")


PAPER = {"fedavg", "fedprox", "fednova", "moon", "feddg", "fedkd",
         "fedper", "fedbn", "fedmri", "hyperfed", "fedfdd", "scan_physfed"}  # fmt: skip
BOUNDS = {"local", "pooled"}
TABLES = {
    "table1_redcnn": PAPER | BOUNDS,
    "table2_uformer": (PAPER | BOUNDS) - {"feddg", "fedbn"},
    "table3_unseen": PAPER,
}


@pytest.mark.parametrize("table", TABLES)
def test_the_tables_of_the_paper_have_its_methods_and_settings(table: str) -> None:
    full = load_suite(EXPERIMENTS / f"{table}.yaml")
    small = load_suite(EXPERIMENTS / f"{table}.yaml", ["scale=small"])
    for suite in (full, small):
        assert {run.experiment.method.name for run in suite.runs} == TABLES[table]
        assert {run.experiment.seed for run in suite.runs} == {1, 2, 3}
        assert all(len(run.experiment.clients) == 8 for run in suite.runs)
        assert all(len(run.experiment.unseen) == 4 for run in suite.runs)
    experiment = full.runs[0].experiment
    training = experiment.training
    assert (training.rounds, training.batch_size, training.lr) == (200, 20, 1e-3)
    assert experiment.data.image_size == 256
    assert (experiment.backbone.name, experiment.backbone.settings.channels) == (
        ("uformer", 16) if "uformer" in table else ("red_cnn", 96)
    )
    assert not any(variant.trials for variant in full.variants)
    assert all(len(variant.trials) == 3 for variant in small.variants)
    assert small.runs[0].experiment.data.image_size == 128


@pytest.mark.parametrize("scale", [[], ["scale=small"]])
def test_tables_3_and_4_train_nothing_that_table_1_has(scale: list[str]) -> None:
    first, third, fourth = (
        load_suite(EXPERIMENTS / f"{name}.yaml", scale)
        for name in ("table1_redcnn", "table3_unseen", "table4_ablation")
    )
    assert first.folder == third.folder == fourth.folder

    def everything(suite: Suite) -> dict[str, str]:
        runs = (run for v in suite.variants for run in (*v.runs, *v.trials))
        return {run.path: run.experiment.to_yaml() for run in runs}

    known = everything(first)
    assert everything(third).items() <= known.items()
    shared = {path: text for path, text in everything(fourth).items() if path in known}
    assert shared.items() <= known.items()
    assert {path.split("/")[1].split("-")[0] for path in shared} == {
        "fedavg", "fedper", "scan_physfed",
    }  # fmt: skip


def test_table_4_has_the_rows_of_the_paper() -> None:
    rows = []
    for variant in load_suite(EXPERIMENTS / "table4_ablation.yaml").variants[:5]:
        method = variant.runs[0].experiment.method
        own = method.settings
        if method.name == "fedavg":
            rows.append((False, False, "generic", False))
        else:
            paradigm = "generic" if own.share_decoder else "personalised"
            rows.append((own.scanning, own.anatomy, paradigm, own.tau > 0))
    assert rows == [
        (False, False, "generic", False),
        (True, False, "personalised", False),
        (False, True, "personalised", False),
        (True, True, "personalised", False),
        (True, True, "personalised", True),
    ]

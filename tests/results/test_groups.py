"""Which runs differ in their seed alone, and by what words others are told apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from physfed_ray.errors import PhysFedError
from physfed_ray.results.compare_tables import Comparison
from physfed_ray.results.groups import full_names, group_runs
from physfed_ray.results.runs import RunResults, read_results

MakeRun = Callable[..., Path]
SMALL = {"rounds": 2, "n": 32, "slices": 1, "clients": 2, "unseen": 0}


def change(run: Path, part: str, **keys: Any) -> Path:
    """Change a group of keys in a run's experiment."""
    path = run / "experiment.yaml"
    content = yaml.safe_load(path.read_text())
    content[part] = content.get(part, {}) | keys
    path.write_text(yaml.safe_dump(content))
    return run


def named(run: Path, label: str | None) -> Path:
    """Give a run a label of its user's."""
    path = run / "experiment.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"label": label}))
    return run


def test_an_earlier_version_wrote_other_keys_of_the_same_experiment(make_run: MakeRun) -> None:
    before = change(make_run("fedavg", 1, **SMALL), "backbone", size=None)
    now = change(make_run("fedavg", 2, **SMALL), "training", objective={"name": "mse"})
    (group,) = group_runs([read_results(before), read_results(now)])
    assert group.seeds == [1, 2]


def test_another_detector_is_other_data(make_run: MakeRun) -> None:
    flat, curved = (make_run("fedavg", 1, tag=tag, **SMALL) for tag in ("flat", "curved"))
    path = curved / "experiment.yaml"
    content = yaml.safe_load(path.read_text())
    for client in content["clients"]:
        client["protocol"] |= {"detector": "arc"}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(PhysFedError, match="arc"):
        group_runs([read_results(flat), read_results(curved)])


def test_another_objective_is_another_group(make_run: MakeRun) -> None:
    mse = make_run("fedavg", 1, tag="mse", **SMALL)
    l1 = change(make_run("fedavg", 1, tag="l1", **SMALL), "training", objective={"name": "l1"})
    labels = [group.label for group in group_runs([read_results(mse), read_results(l1)])]
    assert labels == ["FedAvg (objective l1)", "FedAvg (objective mse)"]


def test_a_users_label_stands_for_the_title_and_the_network(make_run: MakeRun) -> None:
    def run(tag: str, label: str | None, **options: Any) -> RunResults:
        made = make_run("fedavg", 1, tag=tag, **SMALL | options)
        return read_results(named(made, label))

    def names(*runs: RunResults) -> list[str]:
        return full_names(group_runs(runs))

    plain, mine = run("plain", None), run("mine", "FedAvg, mine", backbone="uformer")
    assert names(plain, mine) == ["FedAvg, RED-CNN", "FedAvg, mine"]
    assert names(run("again", "FedAvg, mine"), mine) == [
        "FedAvg, mine, RED-CNN", "FedAvg, mine, Uformer",
    ]  # fmt: skip
    l1 = change(make_run("fedavg", 1, tag="l1", **SMALL), "training", objective={"name": "l1"})
    assert names(run("mse", "mine"), read_results(named(l1, "mine"))) == [
        "mine (objective l1)", "mine (objective mse)",
    ]  # fmt: skip


def test_another_front_end_is_another_group_with_an_input_of_its_own(make_run: MakeRun) -> None:
    def run(tag: str, **keys: Any) -> RunResults:
        made = make_run("fedavg", 1, tag=tag, **SMALL)
        return read_results(change(made, "front_end", **keys) if keys else made)

    runs = [
        run("plain"),
        run("tuned", name="fbp", kernel="tuned"),
        run("views", name="neighbour_views", kernel="scanner"),
        run("learned", name="iradonmap"),
    ]
    groups = {group.label: group for group in group_runs(runs)}
    assert {label: group.images for label, group in groups.items()} == {
        "FedAvg (front_end fbp)": "",
        "FedAvg (front_end fbp, kernel tuned)": "fbp, kernel tuned",
        "FedAvg (front_end neighbour_views, kernel scanner)": "neighbour_views, kernel scanner",
        "FedAvg (front_end iradonmap)": "",
    }
    comparison = Comparison(list(groups.values()), {})
    (own,) = comparison.inputs
    assert own.experiment.get("front_end", {}).get("name", "fbp") in ("fbp", "iradonmap")
    assert "kernel" not in own.experiment.get("front_end", {})
    assert sorted(comparison.other_inputs) == [
        "fbp, kernel tuned", "neighbour_views, kernel scanner",
    ]  # fmt: skip

"""What decides a result, and what may change when a run goes on."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.experiment.differences import differences

EXPERIMENT = """
name: small
data: {source: {phantom: {patients: 4, slices: 1}}, image_size: 32, test_patients: [a]}
clients: [{id: c1, protocol: paper-1}, {id: c2, protocol: paper-2, patients: [b]}]
method: {name: scan_physfed}
"""


def experiment(folder: Path, *overrides: str) -> Experiment:
    path = folder / "small.yaml"
    path.write_text(EXPERIMENT)
    return load_experiment(path, overrides)


def written(folder: Path) -> Any:
    """Return the keys as a run directory holds them."""
    return yaml.safe_load(experiment(folder).to_yaml())


def now(folder: Path, *overrides: str) -> dict[str, Any]:
    return experiment(folder, *overrides).model_dump(mode="json")


@pytest.mark.parametrize(
    "override",
    [
        "name=renamed",
        "data.cache=elsewhere",
        "reports.pool.max_batch=3",
        "federation.quorum=0.5",
        "federation.private_memory_mb=1",
        "federation.wait_s=1",
        "federation.replace_s=1",
        "federation.deadline_s=1",
        "federation.clients_per_host=2",
        "federation.gpus_per_host=0",
        "federation.checkpoint_every=3",
        "federation.keep_checkpoints=9",
        "evaluation.metrics=[fsim]",  # measured again, not trained again
        "tracking=[mlflow]",
        "label=mine",
        "provenance={git_commit: abc}",
    ],
)
def test_what_decides_no_parameter_may_change(tmp_path: Path, override: str) -> None:
    changed = now(tmp_path, override)
    assert changed != now(tmp_path)
    assert differences(written(tmp_path), changed) == []


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=2", "seed"),
        ("data.image_size=48", "data.image_size"),
        ("data.source.phantom.slices=2", "data.source.phantom.slices"),
        ("data.test_patients=[c]", "data.test_patients"),
        ("clients.1.patients=[c]", "clients.1.patients"),
        ("clients.0.protocol=paper-3", "clients.0.protocol"),
        ("clients=[{id: c1, protocol: paper-1}]", "clients"),
        ("unseen=unseen-1", "unseen"),
        ("reports.encoder={name: minilm, tokens: 4}", "reports.encoder.tokens"),
        ("backbone.channels=8", "backbone.channels"),
        ("method.tau=0.5", "method.tau"),
        ("method={name: fedavg}", "method"),
        ("training.lr=0.5", "training.lr"),
        ("training.rounds=3", "training.rounds"),
        ("training.threads=2", "training.threads"),
        ("training.evaluate_every=3", "training.evaluate_every"),
        ("federation.participation=0.5", "federation.participation"),
        ("federation.availability={on_rounds: 2, off_rounds: 2}", "federation.availability"),
        ("federation.deadline_steps=5", "federation.deadline_steps"),
    ],
)
def test_what_decides_the_result_is_named(tmp_path: Path, override: str, key: str) -> None:
    assert differences(written(tmp_path), now(tmp_path, override)) == [key]


def test_a_key_that_a_later_version_added_counts_as_its_default(tmp_path: Path) -> None:
    old = written(tmp_path)
    del old["evaluation"], old["training"]["adam_eps"], old["method"]["heads"]
    del old["clients"][0]["speed"], old["federation"]["sampling"], old["reports"]["encoder"]
    assert differences(old, now(tmp_path)) == []
    assert differences(old, now(tmp_path, "method.heads=2", "training.adam_eps=1e-4")) == [
        "method.heads",
        "training.adam_eps",
    ]
    del old["data"]["source"]  # which has no default
    assert differences(old, now(tmp_path)) == ["data.source"]


def test_a_key_that_a_later_version_dropped_is_not_looked_at(tmp_path: Path) -> None:
    old = written(tmp_path)
    old["gone"] = 1
    old["training"]["gone"] = old["method"]["gone"] = old["clients"][0]["gone"] = "gone"
    assert differences(old, now(tmp_path)) == []

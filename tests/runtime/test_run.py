"""A whole run on tiny phantoms: the run directory, its refusals, and a bucket."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.cluster import check_reachable
from physfed_ray.runtime.run import run_experiment

EXPERIMENT = """
name: tiny
data:
  source: {phantom: {patients: 4, slices: 2}}
  image_size: 48
  test_patients: 1
  validation_patients: 1
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
unseen: [{id: u1, protocol: unseen-2}]
backbone: {channels: 4}
method: {name: scan_physfed}
training: {rounds: 2, batch_size: 2, patch: 32, evaluate_every: 1}
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Return the tiny experiment, its scans cached for this module."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return load_experiment(folder / "tiny.yaml", [f"data.cache={folder / 'cache'}"])


@pytest.fixture(scope="module")
def run_dir(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run directory."""
    out = tmp_path_factory.mktemp("run") / "out"
    run_experiment(experiment, out, runtime="inline", command="physfed run tiny.yaml")
    return out


def test_the_run_directory_holds_what_was_promised(run_dir: Path) -> None:
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {
        "experiment.yaml", "metrics.parquet", "slices.parquet", "checkpoints", "tables", "figures",
        "report.html", "run.log", "summary.json", "examples.npz", "codebook.npz",
    }  # fmt: skip
    last = run_dir / "checkpoints" / "round-0002"
    assert {p.relative_to(last).as_posix() for p in last.rglob("*") if p.is_file()} == {
        "state.json", "server.safetensors", "codebook.safetensors",
        "clients/c1.safetensors", "clients/c2.safetensors",
    }  # fmt: skip
    provenance = yaml.safe_load((run_dir / "experiment.yaml").read_text())["provenance"]
    assert provenance["versions"]["torch"]
    lines = [json.loads(line) for line in (run_dir / "run.log").read_text().splitlines()]
    assert [line["event"] for line in lines][-1] == "done"


def test_every_policy_and_the_input_are_scored_for_seen_and_unseen(run_dir: Path) -> None:
    rows = pq.read_table(run_dir / "metrics.parquet").to_pylist()
    splits = {row["split"] for row in rows if row["metric"] == "psnr" and row["round"] == 2}
    assert splits == {
        "validation", "validation/input", "test", "test/input", "unseen/input", "unseen/pvqs",
        "unseen/mean_of_scores", "unseen/nearest_protocol", "unseen/ensemble", "unseen/oracle",
    }  # fmt: skip
    keys = [(r["round"], r["client"], r["split"], r["metric"]) for r in rows]
    assert len(keys) == len(set(keys))
    per_slice = pq.read_table(run_dir / "slices.parquet").to_pylist()
    mean = np.mean([r["value"] for r in per_slice if (r["client"], r["split"], r["metric"])
                    == ("c1", "test", "psnr")])  # fmt: skip
    (whole,) = [r["value"] for r in rows if (r["round"], r["client"], r["split"], r["metric"])
                == (2, "c1", "test", "psnr")]  # fmt: skip
    assert mean == pytest.approx(whole, abs=1e-9)


def test_the_best_local_model_bounds_the_others(run_dir: Path) -> None:
    rows = pq.read_table(run_dir / "metrics.parquet").to_pylist()
    psnr = {r["split"]: r["value"] for r in rows
            if (r["client"], r["metric"], r["round"]) == ("u1", "psnr", 2)}  # fmt: skip
    assert psnr["unseen/oracle"] >= psnr["unseen/nearest_protocol"]
    assert psnr["unseen/oracle"] >= psnr["unseen/mean_of_scores"]


def test_tensorboard_reads_the_metrics(run_dir: Path) -> None:
    board = EventAccumulator(str(run_dir))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss/c1")] == [1, 2]


def test_a_used_directory_is_refused_and_other_settings_are_too(
    experiment: Experiment, run_dir: Path
) -> None:
    with pytest.raises(PhysFedError, match="already holds a run"):
        run_experiment(experiment, run_dir, runtime="inline")
    other = experiment.model_copy(update={"seed": 99})
    with pytest.raises(PhysFedError, match=r"other settings \(seed\)"):
        run_experiment(other, run_dir, runtime="inline", resume=True)


def test_resume_takes_another_quorum_and_a_file_of_another_version(
    experiment: Experiment, run_dir: Path
) -> None:
    file = run_dir / "experiment.yaml"
    content = yaml.safe_load(file.read_text())
    del content["evaluation"], content["federation"]["buffer"]  # as if they were new
    content["training"]["gone"] = content["gone"] = 1
    file.write_text(yaml.safe_dump(content))
    changed = {"quorum": 0.5, "private_memory_mb": 1.0, "wait_s": 9.0, "deadline_s": 99.0}
    federation = experiment.federation.model_copy(update=changed)
    patient = experiment.model_copy(update={"federation": federation})
    run_experiment(patient, run_dir, runtime="inline", resume=True, tested=False)
    content = yaml.safe_load(file.read_text())
    assert changed.items() <= content["federation"].items()
    assert {"evaluation", "provenance"} <= content.keys()
    assert "gone" not in content


def test_resume_can_add_rounds(experiment: Experiment, run_dir: Path) -> None:
    longer = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"rounds": 3})}
    )
    run_experiment(longer, run_dir, runtime="inline", resume=True)
    rows = pq.read_table(run_dir / "metrics.parquet").to_pylist()
    assert {row["round"] for row in rows if row["split"] == "train"} == {1, 2, 3}


def test_a_bucket_gets_the_whole_run_directory(experiment: Experiment) -> None:
    run_experiment(experiment, "memory://bucket/run", runtime="inline")
    bucket = RunDirectory("memory://bucket/run")
    assert bucket.read("report.html").startswith(b"<!DOCTYPE html>")
    manifest = bucket.last_manifest()
    assert manifest is not None
    assert manifest.round == 2
    assert bucket.exists("tables/seen.md")


def test_no_cluster_at_the_address_is_one_sentence() -> None:
    with pytest.raises(PhysFedError, match="no Ray cluster answers at"):
        check_reachable("127.0.0.1:1")

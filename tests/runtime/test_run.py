"""A whole run on tiny phantoms: the run directory, its refusals, and a bucket."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from physfed_ray.data.prepare import prepare
from physfed_ray.data.store import read_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.experiment.evaluation import Evaluation
from physfed_ray.rundir.model import read_card, write_card
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.cluster import check_reachable
from physfed_ray.runtime.run import run_experiment
from physfed_ray.window import denormalise

EXPERIMENT = """
name: tiny
reports: {encoder: hashed}
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
        "report.html", "run.log", "summary.json", "examples.npz", "codebook.npz", "model.json",
    }  # fmt: skip
    last = run_dir / "checkpoints" / "round-0002"
    assert {p.relative_to(last).as_posix() for p in last.rglob("*") if p.is_file()} == {
        "state.json", "server.safetensors", "codebook.safetensors", "metrics.parquet",
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


ELSEWHERE = """
import sys
import numpy as np
import physfed_ray

run = physfed_ray.load_run("run")
for name, chosen in {"c1": {"client": "c1"}, "u1": {"protocol": "u1"}}.items():
    given = np.load(f"{name}.npz")
    hu = given["low"].astype(np.float64) * 3000 - 1000
    read = {key: given[key] for key in ("embedding", "mask")}
    np.save(f"{name}.npy", run.denoiser(**chosen)(hu, **read))
assert not {"ray", "astra"} & set(sys.modules)
"""


def test_another_machine_needs_the_run_directory_alone(
    experiment: Experiment, run_dir: Path, tmp_path: Path
) -> None:
    """Its images of the last evaluation come back bit for bit, in a process without the data."""
    prepared = prepare(experiment)
    for client in (prepared.clients[0], prepared.unseen[0]):
        assert client.test is not None
        data = read_client_data(client.test)
        arrays = {"low": data.low, "embedding": data.embedding, "mask": data.embedding_mask}
        np.savez(tmp_path / f"{client.id}.npz", allow_pickle=False, **arrays)
    copytree(run_dir, tmp_path / "run")
    (tmp_path / "run/experiment.yaml").unlink()
    (tmp_path / "home").mkdir()
    cache = experiment.data.cache
    assert cache is not None
    hidden = cache.rename(cache.with_name("hidden"))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    try:
        subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, env=environment, check=True)
    finally:
        hidden.rename(cache)
    assert not list((tmp_path / "home").iterdir())
    for name, split in {"c1": "test", "u1": "unseen/pvqs"}.items():
        found = np.load(tmp_path / f"{name}.npy")
        with np.load(run_dir / "examples.npz") as examples:
            expected = denormalise(examples[f"{split}/{name}/denoised"], (-1000.0, 2000.0))
        assert np.array_equal(found[len(found) // 2], expected)


def write_scan(folder: Path, shape: tuple[int, int]) -> Path:
    """Write two CT slices of a disk of water, in the wrong order."""
    folder.mkdir()
    y, x = np.indices(shape)
    disk = np.hypot(y - shape[0] / 2, x - shape[1] / 2) < 20
    for name, z_mm in {"a": 5.0, "b": 0.0}.items():
        ct = Dataset()
        ct.ImagePositionPatient, ct.PixelSpacing = [0.0, 0.0, z_mm], [1.5, 1.25]
        ct.RescaleSlope, ct.RescaleIntercept = 1, -1024
        ct.set_pixel_data((1024 * disk).astype(np.uint16), "MONOCHROME2", 16)
        ct.SOPClassUID, ct.SOPInstanceUID = CTImageStorage, generate_uid()
        ct.file_meta = FileMetaDataset()
        ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ct.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return folder


def test_the_python_page_does_what_it_says(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(experiment.to_yaml())
    hu = np.random.default_rng(1).uniform(-1000, 1000, (2, 48, 48))
    np.save("slices.npy", hu)
    scan = write_scan(tmp_path / "tomorrow", (60, 52))
    names: dict[str, object] = {}
    shapes = []
    for block in blocks:
        exec(block.replace("/data/tomorrow", str(scan)), names)
        if "denoised =" in block:
            given, denoised = names["hu"], names["denoised"]
            assert isinstance(given, np.ndarray)
            assert isinstance(denoised, np.ndarray)
            assert 0 < np.abs(denoised - given).mean() < 500
            shapes.append(denoised.shape)
    assert shapes == [(2, 60, 52), hu.shape]
    assert str(names["denoiser"].choice).startswith("PVQS: the decoder of client c")  # type: ignore[attr-defined]


def test_a_resumed_run_keeps_the_statistics_that_it_began_with(
    experiment: Experiment, run_dir: Path, tmp_path: Path
) -> None:
    """Not those of the prepared data, which may be made anew elsewhere; and it says so."""
    training = experiment.training.model_copy(update={"rounds": 4})
    longer = experiment.model_copy(update={"training": training})
    said: dict[str, list[str]] = {}
    shared: dict[str, bytes] = {}
    for name, mean in (("as_it_was", None), ("other", 0.125)):
        copytree(run_dir, tmp_path / name)
        directory = RunDirectory(tmp_path / name)
        card = read_card(directory)
        begun = replace(card.statistics, input_mean=mean or card.statistics.input_mean)
        write_card(directory, card.model_copy(update={"statistics": begun}))
        events: list[Event] = []
        run_experiment(longer, tmp_path / name, resume=True, runtime="inline", tested=False,
                       on_event=events.append)  # fmt: skip
        said[name] = [e["text"] for e in events if "model.json" in e.get("text", "")]
        shared[name] = directory.read("checkpoints/round-0004/server.safetensors")
        again = read_card(directory)
        assert (again.statistics, again.training.rounds) == (begun, 4)
    assert said["as_it_was"] == []
    (text,) = said["other"]
    assert text.startswith("the prepared data have other statistics than model.json")
    assert shared["as_it_was"] != shared["other"]


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


def test_a_run_of_the_earlier_scanner_is_not_gone_on_with(
    experiment: Experiment, run_dir: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load((run_dir / "experiment.yaml").read_text())
    del content["data"]["object_scale"], content["data"]["kernel_pixels"]
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "experiment.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(PhysFedError, match="the scanner of an earlier version"):
        run_experiment(experiment, earlier, runtime="inline", resume=True)


def test_resume_can_add_rounds(experiment: Experiment, run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copytree(run_dir, copy)
    longer = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"rounds": 3})}
    )
    run_experiment(longer, copy, runtime="inline", resume=True)
    rows = pq.read_table(copy / "metrics.parquet").to_pylist()
    assert {row["round"] for row in rows if row["split"] == "train"} == {1, 2, 3}


def test_resume_measures_what_nobody_asked_for_before(
    experiment: Experiment, run_dir: Path, tmp_path: Path
) -> None:
    def measured(root: Path) -> set[str]:
        return set(pq.read_table(root / "slices.parquet")["metric"].to_pylist())

    copy = tmp_path / "copy"
    copytree(run_dir, copy)
    trained = {path: path.read_bytes() for path in copy.rglob("checkpoints/**/*.safetensors")}
    asked = experiment.model_copy(update={"evaluation": Evaluation(metrics=("fsim",))})
    run_experiment(asked, copy, resume=True, runtime="inline")
    assert measured(copy) - measured(run_dir) >= {"fsim"}
    assert trained
    assert {path: path.read_bytes() for path in trained} == trained


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

"""Where a run may begin or go on, with which data, and beside whom."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.cli import main
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.results.groups import group_runs
from physfed_ray.results.runs import read_results
from physfed_ray.rundir.lock import alone
from physfed_ray.runtime import run
from physfed_ray.runtime.run import run_experiment
from tests.data.conftest import WriteCT
from tests.data.conftest import write_ct as write_ct

EXPERIMENT = """
name: tiny
seed: {seed}
data:
  source: {{dicom: ct}}
  image_size: 32
  test_patients: 1
clients: [{{id: c1, protocol: paper-2}}, {{id: c2, protocol: paper-6}}]
backbone: {{channels: 2}}
method: {{name: {method}}}
training: {{rounds: {rounds}, batch_size: 2}}
"""

Make = Callable[..., Experiment]


@pytest.fixture
def make(tmp_path: Path, write_ct: WriteCT, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what makes experiments on a folder of three patients."""
    monkeypatch.setenv("PHYSFED_SALT", "of the tests")
    monkeypatch.setattr(run, "write_page", lambda directory: None)
    for number in range(3):
        add_patient(tmp_path / "ct", write_ct, number)

    def made(seed: int = 1, method: str = "fedavg", rounds: int = 1) -> Experiment:
        file = tmp_path / f"{method}-{seed}.yaml"
        file.write_text(EXPERIMENT.format(seed=seed, method=method, rounds=rounds))
        return load_experiment(file, [f"data.cache={tmp_path / 'cache'}"])

    return made


def add_patient(folder: Path, write_ct: WriteCT, number: int, hu: float = 40.0) -> None:
    y, x = np.ogrid[-32:32, -32:32]
    body = np.where(np.hypot(x, y) < 18 + number, hu, -1000.0).astype(np.float32)
    for z in range(2):
        path = folder / f"{number}-{z}.dcm"
        write_ct(path, body + 10 * z, patient=f"P{number}", series=f"{number}", z_mm=5.0 * z)


def go(experiment: Experiment, out: Path, **options: object) -> list[str]:
    said: list[str] = []
    run_experiment(
        experiment,
        out,
        runtime="inline",
        on_event=lambda e: said.append(e["text"]) if e["event"] == "message" else None,
        **options,  # type: ignore[arg-type]
    )
    return said


def test_data_that_changed_are_not_gone_on_with(
    make: Make, tmp_path: Path, write_ct: WriteCT
) -> None:
    first = tmp_path / "first"
    go(make(), first)
    assert "c1" in " ".join(read_results(first).data.dealt)  # type: ignore[union-attr]
    go(make(rounds=2), first, resume=True)
    for number in range(3, 6):
        add_patient(tmp_path / "ct", write_ct, number)
    with pytest.raises(PhysFedError, match=r"data of .*first have changed .*patients .* added"):
        go(make(rounds=3), first, resume=True)


def test_another_image_of_the_same_patient_is_noticed(
    make: Make, tmp_path: Path, write_ct: WriteCT
) -> None:
    first = tmp_path / "first"
    go(make(), first)
    for number in range(3):
        add_patient(tmp_path / "ct", write_ct, number, hu=60.0)
    with pytest.raises(PhysFedError, match=r"the patients are the same, but not their images"):
        go(make(rounds=2), first, resume=True)


def test_runs_on_other_patients_are_neither_begun_beside_nor_compared(
    make: Make, tmp_path: Path, write_ct: WriteCT
) -> None:
    one, two, three, four = (tmp_path / name for name in ("one", "two", "three", "four"))
    go(make(), one)
    go(make(method="fedper"), two, beside=[str(one), str(tmp_path / "not begun")])
    assert len(group_runs([read_results(one), read_results(two)])) == 2
    for number in range(3, 6):
        add_patient(tmp_path / "ct", write_ct, number)
    with pytest.raises(PhysFedError, match=r"the data are not those of .*one.*added"):
        go(make(method="fedprox"), three, beside=[str(one)])
    go(make(method="fedprox"), four)
    go(make(method="fedavg", seed=2), three)
    runs = [read_results(out) for out in (one, four)]
    with pytest.raises(PhysFedError, match=r"one and .*four are not the same, though"):
        group_runs(runs)
    assert len(group_runs(runs, force=True)) == 2
    with pytest.raises(PhysFedError, match=r"three are not the same.*source did not hold"):
        group_runs([read_results(out) for out in (one, three)])


def test_resuming_says_where_there_is_no_run(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any(
        "fresh holds no run to resume: one begins there" in text
        for text in go(make(), tmp_path / "fresh", resume=True)
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(PhysFedError, match=r"holds other files \(thesis.tex\), but no run"):
        go(make(), other, resume=True)
    assert sorted(path.name for path in other.iterdir()) == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    for resume in (False, True):
        with pytest.raises(PhysFedError, match="file is a file, not a run directory"):
            go(make(), tmp_path / "file", resume=resume)
    with pytest.raises(PhysFedError, match="already holds a run"):
        go(make(), tmp_path / "fresh")
    (tmp_path / "fresh/experiment.yaml").unlink()
    with pytest.raises(PhysFedError, match="already holds a run"):
        go(make(), tmp_path / "fresh")


@pytest.mark.cluster
def test_a_second_process_on_a_run_directory_is_refused_until_the_first_is_killed(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(rounds=500)
    file, out = tmp_path / "fedavg-1.yaml", tmp_path / "run"
    arguments = ["run", str(file), "--out", str(out), "--runtime", "inline"]
    arguments += ["--set", f"data.cache={tmp_path / 'cache'}"]
    first = subprocess.Popen(
        [sys.executable, "-m", "physfed_ray", *arguments],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        ends = time.monotonic() + 200
        while not list(out.glob("checkpoints/round-*/state.json")):
            assert first.poll() is None
            assert time.monotonic() < ends, "waited in vain for a round"
            time.sleep(0.05)
        assert main([*arguments, "--resume"]) == 2
        told = capsys.readouterr().err
        assert f"another `physfed` is at work in {out} (process {first.pid} on " in told
    finally:
        first.kill()
        first.wait()
    with alone(out):
        assert list(out.glob("checkpoints/round-*/state.json"))

"""What is sent to a cluster, and what is refused before anything is."""

import shlex
import subprocess
from pathlib import Path

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.runtime.submission import Job, default_run_directory, make_job

EXPERIMENT = """
name: tiny
data: {source: {phantom: {patients: 3, slices: 1}}, image_size: 32, test_patients: 1}
clients: "paper-[26]"
method: {name: fedavg}
"""


@pytest.fixture(autouse=True)
def _no_runs_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHYSFED_RUNS", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return an experiment file whose name needs quoting."""
    file = tmp_path / "my own.yaml"
    file.write_text(EXPERIMENT)
    return file


def make(path: Path, *overrides: str, out: str | None = None, resume: bool = False) -> Job:
    return make_job(path, overrides, out, resume=resume, command="physfed submit")


def as_the_head_reads(entrypoint: str, **variables: str) -> list[str]:
    """Return the words of a command after the shell has read it."""
    script = f"set -- {entrypoint}; for word; do printf '%s\\n' \"$word\"; done"
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_command_survives_the_shell(path: Path) -> None:
    override = "clients=[{id: 'a', protocol: paper-2}]"
    job = make(path, override, out="s3://bucket/it's here", resume=True)
    assert as_the_head_reads(job.entrypoint) == [
        "physfed", "run", "my own.yaml", "--address", "auto", "--set", override, "--resume",
        "--out", "s3://bucket/it's here",
    ]  # fmt: skip


def test_without_out_the_head_s_own_variable_or_home_is_used(path: Path) -> None:
    entrypoint = make(path).entrypoint
    name = "tiny-fedavg-seed1"
    here = as_the_head_reads(entrypoint, HOME="/home/two words")
    assert here[-1] == f"/home/two words/physfed/runs/{name}"
    assert as_the_head_reads(entrypoint, HOME="/h", PHYSFED_RUNS="s3://b")[-1] == f"s3://b/{name}"


def test_the_variable_of_the_user_goes_along(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHYSFED_RUNS", "s3://mine/")
    job = make(path)
    assert job.environment["PHYSFED_RUNS"] == "s3://mine/"
    assert job.run_dir == "s3://mine/tiny-fedavg-seed1"
    assert default_run_directory(load_experiment(path)) == job.run_dir
    monkeypatch.setenv("PHYSFED_RUNS", "mine")
    with pytest.raises(PhysFedError, match="PHYSFED_RUNS gives mine/tiny"):
        make(path)


def test_runs_on_this_machine_go_to_runs(path: Path) -> None:
    assert default_run_directory(load_experiment(path)) == "runs/tiny-fedavg-seed1"


def test_only_the_file_is_sent_as_it_was_written(path: Path) -> None:
    (path.parent / "secret.txt").write_text("stays here")
    job = make(path, "training.rounds=3")
    with job.working_directory() as folder:
        assert [file.name for file in folder.iterdir()] == ["my own.yaml"]
        assert (folder / "my own.yaml").read_text() == EXPERIMENT
    assert not folder.exists()


def test_two_submissions_have_different_ids(path: Path) -> None:
    ids = {make(path).id for _ in range(2)}
    assert len(ids) == 2
    assert all(id_.startswith("physfed-tiny-") for id_ in ids)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.source={dicom: ../ct}", "data.source.dicom"),
        ("data.cache=cache", "data.cache"),
        ("federation.availability={csv: hours.csv}", "federation.availability.csv"),
    ],
)
def test_a_path_relative_to_the_file_is_refused(path: Path, override: str, key: str) -> None:
    with pytest.raises(PhysFedError, match=f"{key} is a path relative .* --set {key}=/"):
        make(path, override)


@pytest.mark.parametrize("value", ["/mnt/ct", "~/ct"])
def test_a_path_that_any_machine_understands_is_not(path: Path, value: str) -> None:
    make(path, f"data.source={{dicom: {value}}}", f"data.cache={value}")


def test_a_relative_run_directory_is_refused(path: Path) -> None:
    with pytest.raises(PhysFedError, match="--out gives runs/first"):
        make(path, out="runs/first")


def test_a_mistake_in_the_file_is_found_here(path: Path) -> None:
    path.write_text(EXPERIMENT.replace("paper-[26]", "papier-*"))
    with pytest.raises(PhysFedError, match=r"my own\.yaml: clients: no protocol"):
        make(path)


def test_no_list_of_jobs_names_a_patient(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHYSFED_SALT", "of the tests")
    overrides = ["training.rounds=3", 'data.test_patients=["DOE^JANE 19500101"]']
    command = shlex.join(["physfed", "submit", path.name, "--set", overrides[1]])
    job = make_job(path, overrides, None, resume=False, command=command)
    seen = f"{job.id} {job.entrypoint} {job.environment} {job.metadata}"
    assert "DOE" not in seen
    assert "pseudonym:" in job.metadata["command"]
    with job.working_directory() as folder:
        sent = load_experiment(folder / job.file_name)
    assert sent == load_experiment(path, overrides)

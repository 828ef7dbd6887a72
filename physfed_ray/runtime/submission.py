"""What a cluster job consists of, and the checks that need no cluster."""

import os
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from physfed_ray.data.pseudonyms import pseudonymous_command, pseudonymous_override
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.experiment.assets import named_assets
from physfed_ray.experiment.file import apply_overrides, read_yaml

RUNS_VARIABLE = "PHYSFED_RUNS"
RUNS_ON_CLUSTER = f"${{{RUNS_VARIABLE}:-$HOME/physfed/runs}}"
"""Shell text: the head's own folder of runs. A relative one would lie in the job's working
directory, which Ray deletes."""


@dataclass(frozen=True)
class Job:
    """One experiment, ready to be submitted.

    Attributes:
        id: Ray's submission id.
        entrypoint: Shell command that the head runs in the job's working directory.
        run_dir: Run directory on the cluster; may contain ``RUNS_ON_CLUSTER``.
        file_name: Name of the experiment file in the working directory.
        content: Its bytes, as the user wrote them unless overrides list patients.
        environment: Variables of every process of the job.
        metadata: What the list of jobs shows.
        assets: Files of frozen networks, which go along.
    """

    id: str
    entrypoint: str
    run_dir: str
    file_name: str
    content: bytes
    environment: dict[str, str]
    metadata: dict[str, str]
    assets: tuple[Path, ...] = ()

    @contextmanager
    def working_directory(self) -> Iterator[Path]:
        """Yield a temporary folder that holds the experiment file and its assets alone."""
        with TemporaryDirectory(prefix="physfed-") as folder:
            Path(folder, self.file_name).write_bytes(self.content)
            for path in self.assets:
                copyfile(path, Path(folder, path.name))
            yield Path(folder)


def default_run_directory(experiment: Experiment, runs: str = "runs") -> str:
    """Return where a run is written when ``--out`` is not given.

    Args:
        experiment: The experiment.
        runs: Folder of the runs when the variable ``PHYSFED_RUNS`` names none.
    """
    return f"{(os.environ.get(RUNS_VARIABLE) or runs).rstrip('/')}/{experiment.run_name()}"


def default_folder(name: str) -> str:
    """Return where the runs of a suite, or a sweep, are written when ``--out`` is not given."""
    return f"{(os.environ.get(RUNS_VARIABLE) or 'runs').rstrip('/')}/{name}"


def make_job(
    path: Path, overrides: Sequence[str], out: str | None, *, resume: bool, command: str
) -> Job:
    """Check an experiment as the cluster will see it and return the job that runs it.

    Args:
        path: The experiment file.
        overrides: ``key.path=value`` entries, handed on as ``--set``.
        out: Run directory, an absolute path on the cluster or a URL; None: the default.
        resume: Go on from the last completed round of the run directory.
        command: The command line, for the record.

    Raises:
        PhysFedError: For anything wrong in the file, and for paths that mean nothing on a cluster.
    """
    experiment = load_experiment(path, overrides)
    content, inline = _content(path, overrides)
    run_dir = out or default_run_directory(experiment, RUNS_ON_CLUSTER)
    if not run_dir.startswith(("/", RUNS_ON_CLUSTER)) and "://" not in run_dir:
        source = "--out" if out else RUNS_VARIABLE
        raise PhysFedError(
            f"{source} gives {run_dir}, which would lie in the job's temporary folder: give an "
            "absolute path on the cluster or a URL such as s3://bucket/runs"
        )
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    if os.environ.get(RUNS_VARIABLE):
        environment[RUNS_VARIABLE] = os.environ[RUNS_VARIABLE]
    from physfed_ray.assets.store import FOLDER_VARIABLE, find_asset  # torch

    assets = tuple(find_asset(named) for _, named in named_assets(experiment))
    if assets:
        environment[FOLDER_VARIABLE] = "."
    job = Job(
        id=f"physfed-{experiment.name}-{secrets.token_hex(3)}",
        entrypoint=_entrypoint(path.name, inline, run_dir, resume),
        run_dir=run_dir,
        file_name=path.name,
        content=content,
        environment=environment,
        metadata={
            "experiment": experiment.name,
            "run_dir": run_dir,
            "command": pseudonymous_command(command),
        },
        assets=assets,
    )
    _refuse_relative_paths(job, path, inline, experiment)
    return job


def _content(path: Path, overrides: Sequence[str]) -> tuple[bytes, Sequence[str]]:
    """Return the file to send, and the overrides to give on the command line.

    Everybody who sees the list of jobs sees their commands: overrides that list patients go into
    the file, with all others, because their order counts.
    """
    if all(pseudonymous_override(override) == override for override in overrides):
        return path.read_bytes(), overrides
    content = read_yaml(path)
    apply_overrides(content, overrides)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode(), ()


def _entrypoint(file_name: str, overrides: Sequence[str], run_dir: str, resume: bool) -> str:
    words = ["physfed", "run", file_name, "--address", "auto"]
    for override in overrides:
        words += ["--set", override]
    if resume:
        words.append("--resume")
    quoted = shlex.quote(run_dir)
    if run_dir.startswith(RUNS_ON_CLUSTER):  # the head's shell fills it in
        quoted = f'"{RUNS_ON_CLUSTER}"' + shlex.quote(run_dir.removeprefix(RUNS_ON_CLUSTER))
    return f"{shlex.join(words)} --out {quoted}"


def _refuse_relative_paths(
    job: Job, path: Path, overrides: Sequence[str], here: Experiment
) -> None:
    """Refuse keys whose value depends on the folder in which the file lies."""
    with job.working_directory() as folder:
        there = load_experiment(folder / job.file_name, overrides)
    before, after = _flat(here.model_dump()), _flat(there.model_dump())
    moved = [key for key in before if before[key] != after.get(key)]
    if moved:
        raise PhysFedError(
            f"{path}: {moved[0]} is a path relative to the file, but only the file itself goes to "
            f"the cluster: give the absolute path under which its nodes see it, for example "
            f"--set {moved[0]}=/mnt/data"
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested groups of keys as one mapping from dotted keys to values."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

"""What a run leaves in its directory: its settings with versions, its results, its page."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from physfed_ray.cost.step_cost import network_sizes
from physfed_ray.data.prepare import Prepared
from physfed_ray.experiment import Experiment
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.serving import FinalResults
from physfed_ray.methods.base import Method
from physfed_ray.models.registry import parameter_counts
from physfed_ray.rundir.long_table import SLICE_COLUMNS, SLICES_FILE, LongTable
from physfed_ray.rundir.run_directory import RunDirectory

VERSIONED = ("physfed_ray", "torch", "ray", "numpy", "astra-toolbox", "transformers")


def with_provenance(experiment: Experiment) -> str:
    """Return an experiment as YAML, with the versions that it runs on."""
    content = yaml.safe_load(experiment.to_yaml()) | {"provenance": provenance()}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def provenance() -> dict[str, Any]:
    """Return ``versions`` of the packages that matter, and ``git_commit``."""
    versions = {}
    for name in VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return {
        "versions": versions | {"python": platform.python_version()},
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def write_results(
    directory: RunDirectory,
    rounds: Rounds,
    results: FinalResults,
    experiment: Experiment,
    prepared: Prepared,
    command: str,
) -> None:
    """Write what the last evaluation found.

    Args:
        directory: The run directory.
        rounds: The federation after its last round.
        results: The last evaluation.
        experiment: The experiment.
        prepared: Its data.
        command: The command line.
    """
    rounds.finish(results.rows)
    directory.write_table(SLICES_FILE, LongTable(SLICE_COLUMNS, results.slices))
    directory.write_arrays("examples.npz", results.examples)
    codes = rounds.runtime.server("codebook")
    if codes is not None:
        names = np.array([client.id for client in rounds.spec.clients])
        directory.write_arrays("codebook.npz", {"clients": names, "codes": codes})
    directory.write_json("summary.json", _summary(rounds, results, experiment, prepared, command))


def _summary(
    rounds: Rounds,
    results: FinalResults,
    experiment: Experiment,
    prepared: Prepared,
    command: str,
) -> dict[str, Any]:
    spec = rounds.spec
    last = rounds.metrics.rows(round=rounds.manifest.round, split="system")
    system = {metric: value for _, _, _, metric, value in last}
    (device,) = rounds.runtime.fetch(
        rounds.runtime.start([(rounds.runtime.hosts[0], "device_words", ())])
    )
    return {
        "method": spec.method.name,
        "title": spec.method.title,
        "group": spec.method.group,
        "seed": experiment.seed,
        "rounds": rounds.manifest.round,
        "wall_s": float(rounds.metrics.where(split="system", metric="seconds").values.sum()),
        "device": device,
        "precision": spec.precision,
        "parameters": _parameters(spec.method, spec.seed),
        "bytes_per_round": {"down": system["bytes_down"], "up": system["bytes_up"]},
        "data": prepared.data_summary,
        "clients": [
            {
                "id": client.id,
                "protocol": client.protocol.values(),
                "patients": client.patients,
                "slices": client.slices,
                "host": rounds.runtime.host_of[index],
            }
            for index, client in enumerate(prepared.clients)
        ],
        "unseen": [_unseen_summary(rounds, results, unseen) for unseen in prepared.unseen],
        "command": command,
    }


def _unseen_summary(rounds: Rounds, results: FinalResults, unseen: Any) -> dict[str, Any]:
    route, nearest = results.routes.get(unseen.id), results.nearest.get(unseen.id)
    names = [client.id for client in rounds.spec.clients]
    return {
        "id": unseen.id,
        "protocol": unseen.protocol.values(),
        "route": route and {"client": names[route.client], "cosine": route.cosine},
        "nearest": None if nearest is None else names[nearest],
    }


def _parameters(method: Method, seed: int) -> dict[str, Any]:
    """Return the numbers of parameters that travel, that stay, and of each child."""
    shared, private, _ = network_sizes(method)
    by_module = parameter_counts(method.build(seed))
    return {"shared": shared, "private": private, "by_module": by_module}


def write_page(directory: RunDirectory) -> None:
    """Write the run's page, figures and tables, also where the directory is a bucket."""
    from physfed_ray.pages.run_page import write_run_page  # figures: only for those who want them

    if directory.local_path is not None:
        write_run_page(directory.local_path)
        return
    with TemporaryDirectory() as folder:
        directory.download(Path(folder))
        write_run_page(Path(folder))
        directory.upload(Path(folder), ("report.html", "figures", "tables"))

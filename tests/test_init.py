"""The Python door: each name leads to its room, has its type, and opening it costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from mypy import api as mypy

import physfed_ray
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.pages.compare import compare
from physfed_ray.runtime.run import run_experiment
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.trained import TrainedRun, load_run

ROOT = Path(__file__).parents[1]
USES = """
import numpy as np

import physfed_ray as pr

experiment = pr.load_experiment("quickstart", ["training.rounds=1"])
reveal_type(experiment)
reveal_type(pr.run(experiment, "runs/first", runtime="inline"))
run = pr.load_run("runs/first")
reveal_type(run)
denoiser = run.denoiser("paper-3")
reveal_type(denoiser)
reveal_type(denoiser(np.zeros((1, 128, 128))))
reveal_type(pr.compare(["runs/first", "runs/second"], "comparison.md"))
pr.denoise
pr.run(experiment, "runs/first", runtime="cloud")
"""
"""What a user's script does with every name of the door, and two mistakes at its end."""


def test_names_lead_where_they_say() -> None:
    found = {name: getattr(physfed_ray, name) for name in physfed_ray.__all__}
    assert found == {
        "Denoiser": Denoiser,
        "Experiment": Experiment,
        "TrainedRun": TrainedRun,
        "compare": compare,
        "load_experiment": load_experiment,
        "load_run": load_run,
        "run": run_experiment,
    }
    assert set(physfed_ray.__all__) <= set(dir(physfed_ray))
    with pytest.raises(AttributeError, match="no attribute 'denoise'"):
        _ = physfed_ray.denoise


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import physfed_ray\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "physfed_ray.load_run\n"
        "assert 'torch' in sys.modules and 'ray' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()} - {"physfed_ray"}
    assert loaded <= {"_typing", "collections", "contextlib", "re", "typing"}
    assert "physfed_ray." not in done.stdout


@pytest.mark.cluster
def test_a_type_checker_sees_the_types_of_the_door(tmp_path: Path) -> None:
    """It takes minutes where `mypy` has left no cache; nothing quicker reads types."""
    script = tmp_path / "uses.py"
    script.write_text(USES)
    out, problems, status = mypy.run(["--config-file", str(ROOT / "pyproject.toml"), str(script)])
    assert problems == ""
    assert status == 1
    revealed = [line.split('"')[1] for line in out.splitlines() if "Revealed type" in line]
    assert revealed[:4] == [
        "physfed_ray.experiment.Experiment",
        "str",
        "physfed_ray.serving.trained.TrainedRun",
        "physfed_ray.serving.denoiser.Denoiser",
    ]
    assert revealed[4].startswith("numpy.ndarray[")
    assert revealed[5] == "pathlib.Path"
    mistakes = [line.split("error: ")[1] for line in out.splitlines() if "error: " in line]
    assert len(mistakes) == 2, out
    assert mistakes[0].startswith('Module has no attribute "denoise"')
    assert 'Argument "runtime"' in mistakes[1]

"""A sweep of two trials side by side on two nodes, one of which goes away."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from physfed_ray.runtime.run import run_experiment
from physfed_ray.sweep.space import load_sweep, restored
from physfed_ray.sweep.trials import scores_of, trial_name, trial_runs
from tests.faults.nodes import PATIENCE_S, Nodes, wait_for
from tests.faults.runs import EXPERIMENT

pytestmark = pytest.mark.cluster

SWEEP = """
sweep: tiny
base: base.yaml
settings: {federation.wait_s: 20, training.rounds: 6, clients: "paper-[26]", unseen: []}
space:
  method.tau: {log_uniform: [1e-6, 1]}
  training.lr: {log_uniform: [1e-4, 1e-2]}
trials: 2
concurrent: 2
sampler: random
pruner: none
retries: 2
final_seeds: [11]
"""


def test_every_trial_is_accounted_for_when_a_node_is_lost(cluster: Nodes, tmp_path: Path) -> None:
    """And each gives what it gives in one process, bit for bit."""
    (tmp_path / "base.yaml").write_text(EXPERIMENT)
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    out = tmp_path / "out"
    first, _ = cluster.add(cpus=2), cluster.add(cpus=2)
    physfed = str(Path(sys.executable).with_name("physfed"))
    command = [physfed, "sweep", str(file), "--out", str(out), "--address", cluster.address]
    with (tmp_path / "seen.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
    seen = tmp_path / "seen.txt"

    def begun(number: int) -> bool:
        checkpoints = out / "trials" / trial_name(number) / "seed1" / "checkpoints"
        return checkpoints.exists()

    wait_for(lambda: begun(0) and begun(1), f"two trials at work in {seen.read_text()}")
    cluster.kill(first)
    assert process.wait(PATIENCE_S) == 0, seen.read_text()
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{out / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2, seen.read_text()
    sweep = load_sweep(file)
    for trial in study.trials:
        experiment = sweep.experiment(restored(sweep.file.space, trial.params), 1, "tiny")
        (run,) = trial_runs(trial.number, [experiment])
        run_experiment(experiment, tmp_path / "alone" / run.path, runtime="inline", tested=False)
        assert trial.values == [scores_of(str(tmp_path / "alone"), run)["psnr"]]

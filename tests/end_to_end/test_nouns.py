"""A package adds one of every noun; a run uses them all, in one process and on Ray, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.end_to_end.test_resume import state_of
from tests.outside import write_package

GROUPS = {
    "physfed_ray.fields": {"their_noise": "NOISE"},
    "physfed_ray.backbones": {"their_net": "TwoLayers"},
    "physfed_ray.front_ends": {"their_gain": "OneGain"},
    "physfed_ray.recipes": {"their_blur": "Blur"},
    "physfed_ray.objectives": {"their_huber": "Huber"},
    "physfed_ray.methods": {"their_halves": "Halves"},
    "physfed_ray.channels": {"their_integers": "Integers"},
    "physfed_ray.metrics": {"their_error_hu": "MeanError"},
}
PRETRAIN = """
pretrain: theirs
seed: 4
asset: {name: their_blur}
data:
  source: {phantom: {patients: 3, slices: 2}}
  image_size: 48
training: {steps: 4, batch_size: 2}
"""
EXPERIMENT = """
name: theirs
seed: 3
reports: {encoder: hashed}
data:
  source: {phantom: {patients: 5, slices: 2}}
  image_size: 48
  test_patients: 1
clients:
  - {id: c1, protocol: paper-2}
  - {id: c2, protocol: paper-6}
  - {id: c3, protocol: paper-8}
unseen: [{id: u1, protocol: unseen-2}]
front_end: {name: their_gain}
backbone: {name: their_net, width: 3}
method: {name: their_halves}
training:
  rounds: 3
  batch_size: 2
  patch: 32
  objective: {name: their_huber, asset: ASSET, delta: 0.05}
federation: {clients_per_host: 3, channel: {name: their_integers, bits: 28}}
evaluation: {metrics: [their_error_hu]}
"""
ASSET = """
import sys
from physfed_ray.experiment.pretrain import load_pretrain
from physfed_ray.runtime.pretrain import run_pretrain

file, out = sys.argv[1:]
print(run_pretrain(load_pretrain(file), out, runtime="inline").name)
"""
RUN = """
import sys
from physfed_ray.experiment import load_experiment
from physfed_ray.runtime.run import run_experiment

file, asset, out, runtime = sys.argv[1:]
experiment = load_experiment(file, [f"training.objective.asset={asset}"])
run_experiment(experiment, out, runtime=runtime)
"""
SERVE = """
import numpy as np
import physfed_ray
from physfed_ray.errors import PhysFedError

denoiser = physfed_ray.load_run(out).denoiser(client="c1")
hu = np.zeros((2, 48, 48), np.float32)
assert np.isfinite(denoiser(hu, fields={"their_noise": hu})).all()
try:
    denoiser(hu)
except PhysFedError as error:
    assert "reads the field 'their_noise'" in str(error)
else:
    raise AssertionError("it denoises without a field that its network reads")
"""


@pytest.mark.cluster
def test_a_package_adds_every_noun(tmp_path: Path) -> None:
    """On Ray as well: that processes of a cluster find the package, no scripted runtime shows."""
    package = tmp_path / "package"
    write_package(package, Path(__file__).with_name("their_nouns.py").read_text(), GROUPS)
    pretrain, experiment = tmp_path / "pretrain.yaml", tmp_path / "theirs.yaml"
    pretrain.write_text(PRETRAIN)
    experiment.write_text(EXPERIMENT)
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "-c", ASSET, pretrain, tmp_path / "asset"]
    made = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    asset = made.stdout.split()[-1]
    for runtime, script in (("inline", RUN), ("ray", RUN + SERVE)):
        out = tmp_path / runtime
        command = [sys.executable, "-c", script, experiment, asset, out, runtime]
        subprocess.run(command, check=True, env=environment)
    assert state_of(tmp_path / "inline") == state_of(tmp_path / "ray")
    rows = pq.read_table(tmp_path / "ray" / "metrics.parquet").to_pylist()
    found = {row["metric"] for row in rows}
    assert {"huber", "blurred", "their_error_hu"} <= found
    assert {r["value"] for r in rows if r["metric"].endswith("bits")} == {28.0}
    assert "Mean error" in (tmp_path / "ray" / "report.html").read_text()

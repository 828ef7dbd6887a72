"""The description: the numbers it prints are those of the run it describes."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from physfed_ray.describe import print_description
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.methods.base import Task
from physfed_ray.methods.registry import METHODS, get_method
from physfed_ray.step_cost import measure_step, network_sizes, steps_per_round

EXPERIMENT = """
name: small
data:
  source: {phantom: {patients: 6, slices: 3}}
  image_size: 64
  test_patients: 1
  validation_patients: 1
  cache: cache
clients:
  - {id: a, protocol: paper-1, patients: [phantom-00, phantom-01]}
  - {id: b, protocol: paper-2}
unseen: unseen-3
backbone: {channels: 4}
method: {name: fedper}
training: {rounds: 2, batch_size: 2, patch: 32}
"""


def load(tmp_path: Path, *overrides: str) -> Experiment:
    path = tmp_path / "small.yaml"
    path.write_text(EXPERIMENT)
    return load_experiment(path, overrides)


def task(experiment: Experiment) -> Task:
    return Task(64, 2, 0.0, 1.0, 1, 384, (0.0,) * 384, (1.0,) * 384, experiment.backbone)


def described(experiment: Experiment) -> str:
    out = io.StringIO()
    print_description(experiment, Console(file=out, width=200))
    return out.getvalue()


def test_it_names_clients_patients_slices_and_sizes(tmp_path: Path):
    text = described(load(tmp_path))
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["a"][1:4] == ["2", "6", "1024"]
    assert rows["b"][1:4] == ["2", "6", "128"]
    assert rows["unseen-3"][1:4] == ["1", "3", "530"]
    assert "validation: 1 patient(s), 3 slices" in text
    # 5x5 kernels and a bias: 1 -> 4 channels, then four times 4 -> 4; the decoder mirrors it.
    encoder, decoder = 4 * 25 + 4 + 4 * (16 * 25 + 4), 4 * (16 * 25 + 4) + 4 * 25 + 1
    assert f"{encoder:,} shared, {decoder:,} private" in text
    assert f"{2 * 4 * encoder / 1000:.1f} kB down" in text
    assert "6 steps" in text


def test_it_says_which_scans_are_missing_from_the_cache(tmp_path: Path):
    # a: 2 train, b: 2 train; validation and test patient under both; test patient unseen
    assert "scans: 9 (patient x protocol), 0 of them in the cache" in described(load(tmp_path))


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_can_be_sized_and_timed(tmp_path: Path, name: str):
    experiment = load(tmp_path, f"method={{name: {name}}}")
    method = get_method(name)(experiment.method.settings, task(experiment))
    shared, private, _ = network_sizes(method)
    assert shared + private == sum(p.numel() for p in method.build(1).parameters())
    cost = measure_step(method, experiment.training, 64)
    assert cost.seconds > 0
    assert cost.activation_bytes > 0


def test_memory_grows_with_the_batch_and_the_area(tmp_path: Path):
    experiment = load(tmp_path)
    method = get_method("fedper")(experiment.method.settings, task(experiment))
    small = measure_step(method, experiment.training, 64).activation_bytes
    larger = experiment.training.model_copy(update={"batch_size": 6})
    assert measure_step(method, larger, 64).activation_bytes == pytest.approx(3 * small)
    whole = experiment.training.model_copy(update={"patch": None})
    four, sixteen = (measure_step(method, whole, n).activation_bytes for n in (128, 256))
    assert sixteen == pytest.approx(4 * four)


def test_steps_are_those_of_the_training_batches(tmp_path: Path):
    training = load(tmp_path, "training.local_epochs=3", "training.patches_per_slice=2").training
    assert steps_per_round(training, 5) == 3 * 5  # 5 slices x 2 patches in batches of 2, 3 times

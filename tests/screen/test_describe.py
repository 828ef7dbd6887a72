"""The description: the numbers it prints are those of the run it describes."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from physfed_ray.cost import fresh_noise
from physfed_ray.cost.estimate import (
    Load,
    host_bytes,
    hosts_here,
    load_of,
    method_of,
    seconds_here,
    slots_here,
)
from physfed_ray.cost.fresh_noise import fresh_cost
from physfed_ray.cost.machines import GIB, Machine, Need, fit
from physfed_ray.cost.step_cost import PROBE, measure_step, network_sizes
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.plan import plan
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.methods.given import Task
from physfed_ray.methods.registry import METHODS, get_method
from physfed_ray.objectives.base import ObjectiveSettings
from physfed_ray.objectives.registry import make_objective
from physfed_ray.screen.describe import print_description
from physfed_ray.words import byte_size, duration
from tests.conftest import without_server
from tests.objectives.test_base import Edges

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
    return Task(64, 2, 0.0, 1.0, 1, 384, (0.0,) * 384, (1.0,) * 384, experiment.backbone.make())


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


def test_detectors_and_arcs_are_shown_where_one_is_unusual(tmp_path: Path):
    assert "flat" not in described(load(tmp_path))
    short = PRESETS["paper-2"].values() | {"detector": "arc", "arc_deg": 240}
    experiment = load(tmp_path, f"clients.1.protocol={short}", "method={name: scan_physfed}")
    rows = {line.split()[0]: line.split() for line in described(experiment).splitlines() if line}
    assert rows["client"][-2:] == ["kind", "arc"]
    assert rows["a"][-2:] == ["flat", "360"]
    assert rows["b"][-2:] == ["arc", "240"]
    assert rows["unseen-3"][-2:] == ["flat", "360"]


def test_traffic_of_methods_with_their_own_bytes(tmp_path: Path):
    encoder = 4 * (4 * 25 + 4 + 4 * (16 * 25 + 4))
    text = described(load(tmp_path, "method={name: fedmri}"))
    # Down go the average and both encoders of the last round, up an encoder a client.
    words = f"traffic: {byte_size(2 * 3 * encoder)} down and {byte_size(2 * encoder)} up a round"
    assert words in text
    student = encoder + 4 * (4 * (16 * 25 + 4) + 4 * 25 + 1)
    text = described(load(tmp_path, "method={name: fedkd}"))
    assert f"traffic: at most {byte_size(2 * student)} down and {byte_size(2 * student)} up" in text
    assert "traffic: none in rounds" in described(load(tmp_path, "method={name: pooled}"))


def test_the_cost_of_fresh_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fixed, fresh = load(tmp_path), load(tmp_path, "data.noise=fresh")
    assert "noise:" not in described(fixed)
    assert fresh_cost(fresh, [6, 6], pooled=False).seconds > 0
    monkeypatch.setattr(fresh_noise, "_time", lambda *of: (1.0, 2.0))  # a slice of paper-1
    slower = 128 * 768 / (1024 * 512), 2 * 128 / 1024  # of paper-2
    seconds, stored = 6 * (3 + sum(slower)), 4 * 6 * (1024 * 512 + 128 * 768)
    words = f"takes {duration(seconds)} a round in one process and {byte_size(stored)} of line"
    assert words in described(fresh)
    bare, loaded = (load_of(e, plan(e), method_of(e)) for e in (fixed, fresh))
    assert loaded.fresh.seconds == pytest.approx(seconds)
    times = [seconds_here(fresh, replace(one, cost=bare.cost)) for one in (bare, loaded)]
    at_once = min(hosts_here(fresh), slots_here(fresh))
    assert times[1] - times[0] == pytest.approx(2 * seconds / at_once)  # of two rounds
    memory = [host_bytes(fresh, replace(one, cost=bare.cost), 1) for one in (bare, loaded)]
    assert memory[1] - memory[0] == pytest.approx(loaded.fresh.host_bytes)
    assert loaded.fresh.host_bytes > 6 * 8 * 4 * 1024 * 512
    half = load(tmp_path, "data.noise=fresh", "federation.participation=0.5")
    assert load_of(half, plan(half), method_of(half)).fresh.seconds == pytest.approx(seconds / 2)


def test_what_is_published_once_is_said(tmp_path: Path):
    text = described(load(tmp_path, "method={name: feddg, window: 0.1}"))
    spectra = 2 * 2 * 7 * 7 * 4  # clients x images of a batch x amplitudes within 3 of zero x bytes
    whose = 2 * 2 * 4
    received = 2 * (spectra + whose)
    assert f"published: {byte_size(spectra)} up and {byte_size(received)} down, before" in text
    assert "published" not in described(load(tmp_path))


def test_many_clients_are_cut_short_and_counted(tmp_path: Path):
    many = [
        "clients={generate: {clients: 60, speed_spread: 0.5}}",
        "data.source.phantom.patients=auto",
    ]
    text = described(load(tmp_path, *many, "federation.participation=0.1"))
    rows = [line for line in text.splitlines() if line.startswith("g")]
    assert len(rows) == 24
    assert "and 36 more" in text
    assert "rounds of 6 of 60 clients (uniformly drawn)" in text
    assert "up a round, 6 clients" in text
    assert "12 steps of" in text  # 3 slices in batches of 2
    speeds = [client.speed for client in load(tmp_path, *many).clients]
    assert f"speeds: {min(speeds):g} to {max(speeds):g}" in text


@pytest.mark.parametrize(
    ("federation", "words"),
    [
        ("{}", ("rounds of all 2 clients", "stands with 100%", "are waited for")),
        ("{sampling: by_size, participation: 0.5}", ("1 of 2 clients (by their slices drawn)",)),
        ("{deadline_steps: 20}", ("late after 20 steps", "left out")),
        ("{deadline_steps: 20, late: merge}", ("merged", "(1 + s)^-0.5", "none above 20")),
        ("{schedule: async, buffer: 1}", ("asynchronous: all 2 clients", "1 updates make")),
        ("{availability: {on_rounds: 9, off_rounds: 3}}", ("reached for 9 rounds and not for 3",)),
        ("{quorum: 0.5, deadline_s: 90}", ("stands with 50%", "left behind after 1 min 30 s")),
    ],
)
def test_the_federation_is_put_in_words(tmp_path: Path, federation: str, words: tuple[str, ...]):
    text = described(load(tmp_path, f"federation={federation}"))
    for word in words:
        assert word in text


def test_operations_are_those_of_the_convolutions(tmp_path: Path):
    experiment = load(tmp_path)
    method = get_method("fedper")(experiment.method.settings, task(experiment))
    # RED-CNN on a patch of 32 with 4 channels: five 5 x 5 layers without padding, mirrored.
    sides = [28, 24, 20, 16, 12]
    outer, inner = 25 * 4 * sides[0] ** 2, sum(25 * 16 * side**2 for side in sides[1:])
    products = 2 * (outer + inner)
    # forward, and a gradient each for weights and inputs; the image itself needs no gradient
    expected = 2 * (3 * products - outer)
    assert measure_step(method, experiment.training, 64).image_flops == expected


@pytest.mark.parametrize("size", [64, 96])  # computed, and counted without computing
def test_a_diffusion_network_trains_in_two_passes_and_denoises_in_all_its_steps(
    tmp_path: Path, size: int
):
    keys = "backbone={name: core_diff, channels: 4, steps: 3, modulation: false}"
    experiment = load(tmp_path, "method=fedavg", keys, "training.patch=null")
    method = get_method("fedavg")(experiment.method.settings, task(experiment))
    channels, area = 4, size**2
    read = 9 * channels * area
    convolutions = read + 9 * channels**2 * area
    convolutions += 9 * (2 + 4 + 4) * channels**2 * area // 4  # at half the size
    convolutions += 9 * (8 + 5 * 16) * channels**2 * area // 16  # at a quarter
    convolutions += 4 * 8 * channels**2 * area // 16 + 4 * 2 * channels**2 * area // 4  # up
    convolutions += 9 * 3 * 4 * channels**2 * area // 4 + 9 * 2 * channels**2 * area
    convolutions += channels * area
    embedding = 32 * 128
    once = convolutions + 2 * embedding + 32 * (1 + 2 + 2 + 1) * channels
    cost = measure_step(method, experiment.training, size)
    assert cost.denoise_flops == 3 * 2 * once
    # forward, and a gradient each for weights and inputs. No gradient is needed of the step, nor
    # of what the first pass reads; what the second one reads comes from the first.
    assert cost.image_flops == 2 * (2 * 3 * once - read - 2 * embedding)
    assert "GFLOP an image, by all steps" in described(experiment)


def test_hours_follow_from_the_numbers_that_are_printed(tmp_path: Path):
    long = ("training.rounds=1000000", "training.local_epochs=1000", "training.precision=bf16")
    experiment = load(tmp_path, *long)
    text = described(experiment)
    rounds, images, gflop = re.search(
        r"(\d+) rounds x (\d+) images x ([\d.]+) GFLOP", text
    ).groups()
    assert (int(rounds), int(images)) == (10**6, 4 * 3 * 1000)
    hours = int(rounds) * int(images) * float(gflop) * 1e9 / (312e12 * 0.3) / 3600
    row = next(line.split() for line in text.splitlines() if "a2-highgpu-8g" in line)
    assert float(row[-1]) == pytest.approx(hours, rel=0.02)
    assert float(row[-2]) == pytest.approx(hours / 8, rel=0.02)


def test_a_machine_carries_what_its_scarcest_resource_allows():
    machine = Machine("m", "c", "g", 2, 10, 8, 64, 100, 50)
    need = Need(gpu_bytes=3 * GIB, host_bytes=2 * GIB, threads=1, flops=3.6e17, bf16=False)
    found = fit(machine, need)
    assert (found.per_gpu, found.hosts, found.limit) == (3, 6, "GPU memory")
    assert found.gpu_hours == pytest.approx(100 / 50 / 0.3)
    assert fit(machine, replace(need, threads=2)).limit == "CPUs"
    assert fit(machine, replace(need, host_bytes=32 * GIB)).hosts == 2
    assert fit(machine, replace(need, gpu_bytes=11 * GIB)).hosts == 0
    assert fit(machine, replace(need, bf16=True)).gpu_hours == pytest.approx(1 / 0.3)


def test_what_does_not_fit_is_said(tmp_path: Path):
    text = described(load(tmp_path, "training={rounds: 2, batch_size: 100000}"))
    rows = [line for line in text.splitlines() if "T4" in line and "x" in line]
    assert "does not fit" in rows[0]


def test_it_says_which_scans_are_missing_from_the_cache(tmp_path: Path):
    # a: 2 train, b: 2 train; validation and test patient under both; test patient unseen
    assert "scans: 9 (patient x protocol), 0 of them in the cache" in described(load(tmp_path))


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_can_be_sized_and_timed(tmp_path: Path, name: str):
    keys = json.dumps({"name": name, **without_server(name)})
    experiment = load(tmp_path, f"method={keys}")
    method = get_method(name)(experiment.method.settings, task(experiment))
    shared, private, _ = network_sizes(method)
    kept = (v for v in method.build(1).state_dict().values() if v.is_floating_point())
    assert shared + private == sum(v.numel() for v in kept)  # running statistics too
    cost = measure_step(method, experiment.training, 64)
    assert cost.seconds > 0
    assert cost.activation_bytes > 0


def test_frozen_networks_of_the_objective_are_counted_once(tmp_path: Path):
    experiment = load(tmp_path, "training.patch=null")
    kind = get_method("fedper")
    plain, framed = (
        kind(experiment.method.settings, replace(task(experiment), objective=objective))
        for objective in (make_objective("mse"), Edges(ObjectiveSettings()))
    )
    costs = [measure_step(method, experiment.training, 64) for method in (plain, framed)]
    assert [cost.frozen_bytes for cost in costs] == [0, 4 * (2 * 9 + 2)]
    assert costs[1].activation_bytes > costs[0].activation_bytes
    # two convolutions of 62 x 62 features with 2 x 9 products, one of them with a gradient
    assert costs[1].image_flops - costs[0].image_flops == 2 * 62 * 62 * 2 * 9 * (2 + 1)
    assert network_sizes(plain) == network_sizes(framed)
    bare, loaded = (Load(0, 0, 0, {}, cost, 1, 1, 1) for cost in costs)
    assert host_bytes(experiment, loaded, 1) > host_bytes(experiment, bare, 1)


def test_a_learned_front_end_is_part_of_the_step_and_of_the_private_parameters(tmp_path: Path):
    """Under the scanner with the most readings, paper-1: 1024 views of 512 bins."""
    plain, learned = (
        load(tmp_path, "training.patch=null", f"front_end={name}") for name in ("fbp", "iradonmap")
    )
    methods = [method_of(experiment) for experiment in (plain, learned)]
    costs = [measure_step(method, learned.training, 64) for method in methods]
    views, bins, channels = 1024, 512, 4
    filtering = views * bins**2 + bins**3  # the rows, and the product with the ramp
    into_the_network = 60**2 * 25 * channels  # the gradient of what the first layer reads
    assert costs[1].image_flops - costs[0].image_flops == 2 * (2 * filtering + into_the_network)
    shared, private = ([network_sizes(method)[part] for method in methods] for part in (0, 1))
    assert shared[0] == shared[1]
    assert private[1] - private[0] == 768**2 + 1024  # of the most bins, and of the most views
    assert f"front_end {768**2 + 1024:,}" in described(learned)


def test_the_timed_patch_has_room_for_the_objectives_windows(tmp_path: Path):
    mixed = "training.objective={name: ssim_mixed, scales: 5}"
    experiment = load(tmp_path, mixed, "training.patch=null", "data.image_size=176")
    objective = experiment.training.objective.make()
    assert objective.smallest_side > PROBE
    method = get_method("fedper")(
        experiment.method.settings, replace(task(experiment), objective=objective)
    )
    assert measure_step(method, experiment.training, 176).seconds > 0


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
    assert training.steps_per_round(5) == 3 * 5  # 5 slices x 2 patches in batches of 2, 3 times

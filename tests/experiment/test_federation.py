"""Keys under ``federation``: what is refused, and how it says what is allowed."""

from pathlib import Path

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.experiment.federation import Federation

EXPERIMENT = """
name: small
data: {source: {phantom: {patients: 3, slices: 1}}, image_size: 32, test_patients: 1}
clients: "paper-[12]"
method: {name: fedavg}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a small experiment file."""
    path = tmp_path / "small.yaml"
    path.write_text(EXPERIMENT)
    return path


def federation(file: Path, *overrides: str) -> Federation:
    settings = [f"federation.{override}" for override in overrides]
    return load_experiment(file, settings).federation


def test_by_default_everybody_takes_part_and_nobody_is_late(file: Path) -> None:
    settings = federation(file)
    assert (settings.participation, settings.quorum, settings.schedule) == (1, 1, "sync")
    assert settings.availability is settings.deadline_steps is settings.deadline_s is None
    assert settings.checkpoint_every == 1


@pytest.mark.parametrize(
    "override",
    [
        "participation=0.1",
        "sampling=by_size",
        "availability={on_rounds: 10, off_rounds: 1}",
        "deadline_steps=0.5",
        "gpus_per_host=0",
        "gpus_per_host=0.25",
        "gpus_per_host=8",
        "clients_per_host=64",
        "private_memory_mb=0",
        "max_staleness=0",
        "staleness_exponent=0",
        "replace_s=0",
    ],
)
def test_bounds_are_included(file: Path, override: str) -> None:
    assert federation(file, override) != federation(file)


def test_a_trace_is_relative_to_the_file(file: Path) -> None:
    (file.parent / "hours.csv").write_text("client,from_round,to_round\n")
    trace = federation(file, "availability.csv=hours.csv").availability
    assert trace is not None
    assert trace.csv == file.parent / "hours.csv"


def test_combinations_that_belong_together(file: Path) -> None:
    late = federation(file, "late=merge", "deadline_steps=4")
    assert (late.late, late.deadline_steps) == ("merge", 4)
    assert federation(file, "schedule=async", "buffer=3").buffer == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["participation=0"], ["federation.participation", "greater than 0"]),
        (["participation=1.1"], ["federation.participation", "less than or equal to 1"]),
        (["sampling=size"], ["federation.sampling", "by_size"]),
        (["schedule=asynchronous"], ["federation.schedule", "'async'"]),
        (["buffer=0"], ["federation.buffer", "greater than or equal to 1"]),
        (["late=merge"], ["'late: merge' needs 'deadline_steps'"]),
        (["schedule=async", "deadline_steps=3"], ["'deadline_steps' belongs to", "sync"]),
        (["deadline_steps=0"], ["federation.deadline_steps", "greater than 0"]),
        (["max_staleness=-1"], ["federation.max_staleness"]),
        (["staleness_exponent=-0.5"], ["federation.staleness_exponent"]),
        (["availability={}"], ["federation.availability", "'csv' (a file) or both"]),
        (["availability={on_rounds: 3}"], ["federation.availability", "both 'on_rounds'"]),
        (["availability={csv: a, on_rounds: 3, off_rounds: 1}"], ["federation.availability"]),
        (["availability={csv: a, on_rounds: 3}"], ["federation.availability"]),
        (["availability={on_rounds: 0.5, off_rounds: 1}"], ["availability.on_rounds", "1"]),
        (["clients_per_host=0"], ["federation.clients_per_host", "'auto'"]),
        (["clients_per_host=2.5"], ["federation.clients_per_host", "2.5"]),
        (["gpus_per_host=1.5"], ["federation.gpus_per_host", "a share of a GPU up to 1"]),
        (["gpus_per_host=-1"], ["federation.gpus_per_host"]),
        (["gpus_per_host=true"], ["federation.gpus_per_host", "not true"]),
        (["gpus_per_host=.nan"], ["federation.gpus_per_host", "nan"]),
        (["private_memory_mb=-1"], ["federation.private_memory_mb"]),
        (["checkpoint_every=0"], ["federation.checkpoint_every"]),
        (["keep_checkpoints=0"], ["federation.keep_checkpoints"]),
        (["quorum=0"], ["federation.quorum", "greater than 0"]),
        (["wait_s=0"], ["federation.wait_s"]),
        (["participaton=0.5"], ["did you mean 'participation'"]),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(
    file: Path, overrides: list[str], words: list[str]
) -> None:
    with pytest.raises(PhysFedError) as refusal:
        federation(file, *overrides)
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_a_client_s_size_is_not_counted_twice(file: Path) -> None:
    twice = ["federation.sampling=by_size", "method.weights=samples"]
    with pytest.raises(PhysFedError) as info:
        load_experiment(file, twice)
    for words in ("federation.sampling", "method.weights", "'sampling: uniform' with 'weights: "
                  "samples'", "'sampling: by_size' with 'weights: uniform'"):  # fmt: skip
        assert words in str(info.value)
    for once in twice:
        load_experiment(file, [once])
    load_experiment(file, [twice[0], "method={name: pooled}"])  # which weighs nobody

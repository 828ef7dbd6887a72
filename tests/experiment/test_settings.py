"""Numbers, names and paths beyond all sense are refused at once, by their key."""

import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from physfed_ray.ct.protocol import LIMITS
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.experiment.generate import Generate
from physfed_ray.experiment.named import Named
from physfed_ray.experiment.settings import LONGEST_NAME

SMALLEST = """
name: small
data: {source: {phantom: {patients: 4, slices: 2}}}
clients: [{id: a, protocol: paper-1}, {id: b, protocol: paper-2}]
method: {name: fedavg}
"""
PAPER_1 = "{views: 1024, bins: 512, pixel_mm: 0.66, bin_mm: 0.72, source_mm: 250, detector_mm: 250, photons: 1.0e+5}"  # noqa: E501
ABSURD = (".inf", "-.inf", ".nan", "inf", "nan", "1e30", "-1e30", "1e400", "9" * 30, "9" * 5000,
          "-" + "9" * 30)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "small.yaml"
    path.write_text(SMALLEST)
    return path


def numeric(annotation: object) -> bool:
    """Say whether a key takes a number, or numbers in a list."""
    if annotation in (int, float):
        return True
    return not groups(annotation) and any(map(numeric, typing.get_args(annotation)))


def groups(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in typing.get_args(annotation) for model in groups(arg)]


def numbers(model: type[BaseModel], prefix: str, above: tuple[str, ...]) -> Iterator[typing.Any]:
    """Yield each key below a model that takes numbers, and what must be set for it to be there."""
    for key, field in model.model_fields.items():
        path = f"{prefix}{key}"
        if numeric(field.annotation):
            pair = typing.get_origin(field.annotation) is tuple
            named = typing.get_origin(field.annotation) is dict
            yield path, above, "[{0}, {0}]" if pair else "{{a: [-1, {0}]}}" if named else "{0}"
        for inner in groups(field.annotation):
            if issubclass(inner, Named):
                for name, kind in inner.registry.items():
                    more = (*above, f"{path}.name={name}", *needed(name, path))
                    yield from numbers(kind.Settings, f"{path}.", more)
            elif inner is not BaseModel:
                place = f"{path}.0." if key == "clients" else f"{path}."
                if key != "unseen":
                    yield from numbers(inner, place, above)


def needed(name: str, path: str) -> tuple[str, ...]:
    """Return what else a name needs to be read."""
    if name == "leda":
        return (f"{path}.asset=leda-0123456789ab",)
    if path.startswith("reports") and name in ("mllm", "text"):
        return (f"{path}.model=a",)
    return ()


GENERATED = ("clients={generate: {clients: 2}}",)
NUMBERS = [
    *numbers(Experiment, "", ()),
    *numbers(Generate, "clients.generate.", GENERATED),
    *((f"clients.0.protocol.{key}", (f"clients.0.protocol={PAPER_1}",), "{0}") for key in LIMITS),
]


def test_the_sweep_has_the_keys_of_all_groups() -> None:
    found = {path for path, _, _ in NUMBERS}
    assert {
        "seed", "training.rounds", "data.window_hu", "data.clinical_windows", "method.tau",
        "backbone.channels", "training.objective.eps", "clients.0.speed", "method.cutoff",
        "clients.0.protocol.photons", "federation.availability.on_rounds", "data.test_patients",
        "clients.generate.seed", "reports.pool.gpus_per_reporter", "reports.reporter.temperature",
        "reports.encoder.tokens", "federation.gpus_per_host",
    } <= found  # fmt: skip
    assert len(NUMBERS) > 80


@pytest.mark.parametrize(("key", "above", "form"), NUMBERS, ids=lambda value: str(value)[:40])
def test_every_number_refuses_what_is_infinite_none_or_absurd(
    file: Path, key: str, above: tuple[str, ...], form: str
) -> None:
    for value in ABSURD:
        with pytest.raises(PhysFedError) as refused:
            load_experiment(file, [*above, f"{key}={form.format(value)}"])
        message = str(refused.value)
        assert key.partition(".")[0] in message
        assert key.rpartition(".")[2] in message
        assert len(message) < 700
        assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (f"clients.0.protocol={PAPER_1.replace('1.0e+5', '1e20')}", "clients.0.protocol"),
        (f"clients.0.protocol={PAPER_1.replace('512', '1000000')}", "clients.0.protocol"),
        (f"clients.0.protocol={PAPER_1.replace('512', '90000')}", "clients.0.protocol"),
        ("data.electronic_noise=1e12", "data.electronic_noise"),
        ("data={source: {phantom: {patients: 4}}, image_size: 2048, object_scale: 8}", "data"),
        ("data.window_hu=[0, 1e-300]", "data.window_hu"),
        ("data.window_hu=[true, 400]", "data.window_hu"),
        ("method={name: fedprox, mu: true}", "method.mu"),
        (f"name={'a' * 400}", "name"),
        (f"clients.0.id={'a' * 300}", "clients.0.id"),
        (f"clients.0.patients=[{'a' * 300}]", "clients.0.patients"),
        ("clients.0.patients=['']", "clients.0.patients"),
        (f"data.test_patients=[{'a' * 300}]", "data.test_patients"),
        (f"data.cache={'a' * 300}", "data.cache"),
        (f"data.cache={'a/' * 3000}", "data.cache"),
        ('data.cache="a\\0b"', "data.cache"),
        ("data.cache=~nobody-of-that-name/x", "data.cache"),
        (f"data.clinical_windows={{{'a' * 300}: [0, 1]}}", "data.clinical_windows"),
    ],
)
def test_what_would_fail_late_is_refused_at_once(file: Path, override: str, key: str) -> None:
    with pytest.raises(PhysFedError) as refused:
        load_experiment(file, [override])
    assert f": {key}: " in str(refused.value)
    assert len(str(refused.value)) < 500


def test_the_longest_names_make_names_of_files(file: Path, tmp_path: Path) -> None:
    longest = "a" * LONGEST_NAME
    overrides = [f"name={longest}", f"clients.0.id={longest}", f"seed={2**63 - 1}"]
    experiment = load_experiment(file, overrides)
    (tmp_path / experiment.run_name()).mkdir()
    (tmp_path / f"{experiment.clients[0].id}.safetensors.{'f' * 32}").touch()

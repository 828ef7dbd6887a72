"""The schema: what is read, what is refused and in which words; no key is undocumented."""

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.experiment.assets import named_assets
from physfed_ray.experiment.generate import Generate
from physfed_ray.front_ends.registry import FRONT_ENDS
from physfed_ray.methods.registry import METHODS
from physfed_ray.models.registry import BACKBONES
from physfed_ray.objectives.registry import OBJECTIVES
from physfed_ray.suites.suite import is_suite, load_suite
from tests.assets.leda.tiny import tiny_asset

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WITH_ASSETS = {"language": "leda-000000000000", "diffusion": "da_clip-000000000000"}
OTHERS = ("sweep_", "pretrain_", "surrogate", *WITH_ASSETS)
FILES = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if not path.stem.startswith(OTHERS)]
"""All but the sweeps, what other commands take, and suites that name an asset: these have tests of
their own."""
SMALLEST = """
name: small
data: {source: {phantom: {patients: 4, slices: 2}}}
clients: "paper-[12]"
method: {name: fedavg}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALLEST)
    return path


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) is not None or isinstance(annotation, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from models_in(argument)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield the dotted path of every key below a model, and its description."""
    for name, field in model.model_fields.items():
        nested = list(models_in(field.annotation))
        if name != "settings":
            yield f"{prefix}{name}", field.description
        for inner in nested:
            yield from keys_of(inner, f"{prefix}{name}.")


def indented_keys(text: str) -> set[str]:
    """Return the dotted paths of a commented YAML file, keys that are commented out included."""
    found, stack = set(), []
    for line in text.splitlines():
        match = re.match(r"^(\s*)(?:# )?(?:- )?([a-z_]+):(?:\s|$)", line)
        if not match:
            continue
        depth = match.start(2) - (2 if "# " in line[: match.start(2)] else 0)
        stack = [entry for entry in stack if entry[0] < depth]
        stack.append((depth, match.group(2)))
        found.add(".".join(name for _, name in stack))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_experiment_of_the_project_loads(path: Path):
    assert load_suite(path).runs if is_suite(path) else load_experiment(path).clients


@pytest.mark.parametrize(("name", "missing"), WITH_ASSETS.items())
def test_a_suite_with_an_asset_needs_its_name_in_one_place(name: str, missing: str, tmp_path: Path):
    suite = tmp_path / f"{name}.yaml"
    text = (EXPERIMENTS / suite.name).read_text()
    suite.write_text(text.replace("base: ", f"base: {EXPERIMENTS}/"))
    with pytest.raises(PhysFedError, match=f"there is no asset .*{missing}"):
        load_suite(suite)
    asset = str(tiny_asset(tmp_path).path)
    suite.write_text(suite.read_text().replace(f"&asset {missing}", f"&asset {asset}"))
    named = [name for run in load_suite(suite).runs for _, name in named_assets(run.experiment)]
    assert len(named) > 3
    assert set(named) == {asset}


def test_template_shows_every_key_of_the_schema():
    shown = indented_keys((EXPERIMENTS / "template.yaml").read_text())
    expected = {path for path, _ in keys_of(Experiment)}
    expected |= {f"method.{key}" for key in METHODS["scan_physfed"].Settings.model_fields}
    groups = {"front_end": FRONT_ENDS, "backbone": BACKBONES, "training.objective": OBJECTIVES}
    for group, registry in groups.items():
        for entry in registry.values():
            expected |= {f"{group}.{key}" for key in entry.Settings.model_fields}
    expected |= {f"clients.protocol.{key}" for key in Protocol.__dataclass_fields__}
    expected |= {f"clients.generate.{key}" for key in Generate.model_fields}
    expected -= {path for path in expected if path.startswith("unseen.")}  # the keys of `clients`
    assert expected - shown == set()


def test_template_shows_the_defaults(tmp_path: Path):
    template = load_experiment(EXPERIMENTS / "template.yaml")
    bare = tmp_path / "bare.yaml"
    bare.write_text(SMALLEST.replace("fedavg", "scan_physfed"))
    default = load_experiment(bare)
    for group in ("reports", "backbone", "method", "training", "federation", "evaluation"):
        assert getattr(template, group) == getattr(default, group)
    assert template.data.model_copy(update={"source": default.data.source}) == default.data


def test_every_key_is_described():
    keys = (*keys_of(Experiment), *keys_of(Generate, "clients.generate."))
    undocumented = [path for path, description in keys if not description]
    for name, noun in (*METHODS.items(), *FRONT_ENDS.items()):
        fields = noun.Settings.model_fields
        undocumented += [f"{name}.{key}" for key, field in fields.items() if not field.description]
    assert undocumented == []


def test_a_pattern_becomes_clients_named_by_their_protocols(file: Path):
    clients = load_experiment(file).clients
    assert {c.id: c.protocol for c in clients} == {n: PRESETS[n] for n in ("paper-1", "paper-2")}


def test_a_resolved_experiment_reads_back_equal(file: Path, tmp_path: Path):
    generated = "clients={generate: {clients: 11, patients_per_client: 2, speed_spread: 0.4}}"
    own = [path for path in FILES if not is_suite(path)]
    for source, *more in ((file, generated), *((path,) for path in own)):
        unseen = [] if source.name == "pairs.yaml" else ["unseen=unseen-*"]  # none can be scanned
        experiment = load_experiment(source, [*unseen, "method.name=scan_physfed", *more])
        resolved = tmp_path / "resolved.yaml"
        resolved.write_text(experiment.to_yaml())
        assert load_experiment(resolved) == experiment


def test_what_a_run_adds_is_ignored_when_read(file: Path, tmp_path: Path):
    content = yaml.safe_load(load_experiment(file).to_yaml())
    content["provenance"] = {"versions": {"torch": "2.13.0"}, "git_commit": None}
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(content))
    assert load_experiment(resolved).training == load_experiment(file).training


def test_paths_are_relative_to_the_file(file: Path):
    overrides = ["data.source={dicom: ../ct}", "data.cache=cache"]
    data = load_experiment(file, overrides).data
    assert data.source.dicom == (file.parent / "../ct").resolve()
    assert data.cache == file.parent / "cache"


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4", "+1e-4"])
def test_small_numbers_may_be_written_without_a_dot(file: Path, text: str):
    assert load_experiment(file, [f"training.lr={text}"]).training.lr == 1e-4


def test_overrides_reach_lists_and_new_groups(file: Path):
    clients = "clients=[{id: a, protocol: paper-1}, {id: b, protocol: paper-3}]"
    experiment = load_experiment(file, [clients, "clients.1.patients=[A0001]", "training.rounds=3"])
    assert experiment.clients[1].patients == ("A0001",)
    assert experiment.training.rounds == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs=3", ("training.epochs", "did you mean 'local_epochs'")),
        ("trainig={}", ("trainig", "did you mean 'training'")),
        ("training.rounds=abc", ("training.rounds", "whole number", "abc")),
        ("training.rounds=true", ("training.rounds", "number")),
        ("training.rounds=2.5", ("training.rounds", "whole number")),
        ("training.lr=0", ("training.lr", "greater than 0")),
        ("training.precision=fp16", ("training.precision", "'fp32', 'bf16' or 'auto'")),
        ("training.patch=16", ("training.patch", "32")),
        ("training.patch=512", ("training.patch", "512", "data.image_size", "256")),
        ("training.patches_per_slice=2", ("patches_per_slice", "patch")),
        ("training={rounds: 5, warmup_rounds: 5}", ("warmup_rounds", "5")),
        ("method.wieghts=samples", ("method.wieghts", "did you mean 'weights'")),
        ("method.name=fedavgg", ("method.name", "did you mean 'fedavg'")),
        ("method=7", ("method", "{name: fedavg}")),
        ("backbone.name=unet", ("backbone.name", "red_cnn")),
        ("backbone.chanels=8", ("backbone.chanels", "did you mean 'channels'")),
        ("backbone.channels=0", ("backbone.channels", "greater than or equal to 1")),
        ("backbone.size=T", ("backbone.size", "unknown key", "allowed: channels")),
        ("backbone={name: uformer, size: L}", ("backbone.size", "T, S, B")),
        ("backbone=7", ("backbone", "{name: red_cnn, channels: 32}")),
        ("training.objective=msee", ("training.objective.name", "did you mean 'mse'")),
        ("training.objective.eps=0.1", ("training.objective.eps", "unknown key")),
        ("training.objective=7", ("training.objective", "{name: mse}")),
        (
            "training={patch: 40, objective: {name: ssim_mixed, scales: 3}}",
            ("training.objective", "ssim_mixed needs images of 44 pixels", "training.patch is 40"),
        ),
        ("front_end.name=iradon", ("front_end.name", "did you mean 'iradonmap'")),
        ("front_end.filter=fixed", ("front_end.filter", "unknown key")),
        (
            "front_end={name: iradonmap, filter: fixed, back_projection: fixed}",
            ("front_end", "nothing to learn", "leave front_end out"),
        ),
        (
            "front_end={name: iradonmap, back_projection: pixel}",
            ("front_end.back_projection", "1024 views and 256 x 256 pixels", "choose 'view'"),
        ),
        ("clients=papier-*", ("clients", "paper-1")),
        ("clients={generate: 3}", ("clients", "{generate: {clients: 512}}")),
        ("clients={generate: {clients: 3}, id: a}", ("clients", "{generate: {clients: 512}}")),
        ("clients={generate: {}}", ("clients.generate.clients", "required")),
        ("clients={generate: {client: 3}}", ("clients.generate.client", "mean 'clients'")),
        ("clients={generate: {clients: 0}}", ("clients.generate.clients", "equal to 1")),
        (
            "clients={generate: {clients: 2, protocols: papr-*}}",
            ("clients.generate.protocols", "'papr-*'", "paper-1"),
        ),
        (
            "unseen={generate: {clients: 2, speed_spread: 0.5}}",
            ("unseen", "neither patients", "take", "speed_spread"),
        ),
        ("data.source={phantom: {patients: many}}", ("phantom.patients", "'auto'", "'many'")),
        ("clients=[{id: a, protocol: paper-1, patients: 0}]", ("clients.0.patients", "from 1")),
        ("clients=[]", ("clients", "at least 1")),
        ("clients=[{id: a, protocol: paper-11}]", ("clients.0.protocol", "did you mean 'paper-1'")),
        ("clients=[{id: a, protocol: {views: 8}}]", ("clients.0.protocol", "missing", "photons")),
        ("clients=[{id: a, protocol: {veiws: 8}}]", ("clients.0.protocol", "'views'")),
        ("clients=[{id: server, protocol: paper-1}]", ("server",)),
        ("clients=[{id: a/b, protocol: paper-1}]", ("clients.0.id", "a/b")),
        ("clients=[{id: a, protocol: paper-1, patients: [7]}]", ("clients.0.patients", "quotes")),
        ("unseen=paper-1", ("paper-1", "twice")),
        ("unseen=[{id: u, protocol: paper-1, patients: [A]}]", ("unseen", "test_patients")),
        ("data.source={}", ("data.source", "dicom", "phantom")),
        ("data.source={dicom: a, phantom: {patients: 3}}", ("data.source", "exactly one")),
        ("data.window_hu=[100, -100]", ("data.window_hu", "low < high")),
        ("data.test_patients=0", ("data.test_patients", "at least 1")),
        ("data.test_patients=some", ("data.test_patients", "list of patient ids")),
        ("data.image_size=16", ("data.image_size", "32")),
        ("reports.reporter=measure", ("reports.reporter", "did you mean 'measured'")),
        ("federation.clients_per_host=0", ("federation.clients_per_host", "'auto'")),
        ("federation.quorum=1.5", ("federation.quorum", "less than or equal to 1")),
        ("training.lr", ("training.lr", "key=value")),
        ("training.lr=[", ("training.lr", "YAML")),
        ("clients.0.id=a", ("clients.0.id", "paper-[12]")),
        ("name.first=a", ("name.first", "small")),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(file, override, words):
    with pytest.raises(PhysFedError) as refusal:
        load_experiment(file, [override])
    for word in words:
        assert word in str(refusal.value)


def test_an_impossible_protocol_is_refused_with_its_numbers(file: Path):
    protocol = yaml.safe_load(load_experiment(file).to_yaml())["clients"][0]["protocol"]
    protocol["source_mm"] = 60
    with pytest.raises(PhysFedError, match=r"clients\.0\.protocol.*source_mm=60"):
        load_experiment(file, [f"clients=[{{id: a, protocol: {protocol}}}]"])


def test_detector_and_arc_are_further_keys_of_a_protocol(file: Path, tmp_path: Path):
    seven = PRESETS["paper-1"].values()
    short = seven | {"detector": "arc", "arc_deg": 240}
    loaded = load_experiment(file, [f"clients=[{{id: a, protocol: {short}}}]", "unseen=paper-2"])
    assert loaded.clients[0].protocol == replace(PRESETS["paper-1"], detector="arc", arc_deg=240.0)
    assert loaded.further == ("detector", "arc_deg")
    (tmp_path / "again.yaml").write_text(loaded.to_yaml())
    assert load_experiment(tmp_path / "again.yaml") == loaded
    written = yaml.safe_load(loaded.to_yaml())
    assert written["clients"][0]["protocol"] == short
    assert list(written["unseen"][0]["protocol"]) == list(seven)
    for wrong, words in ({"detector": "curved"}, "detector='curved'"), ({"arc_deg": 400}, "400"):
        with pytest.raises(PhysFedError, match=rf"clients\.0\.protocol: protocol: .*{words}"):
            load_experiment(file, [f"clients=[{{id: a, protocol: {short | wrong}}}]"])


def test_a_learned_front_end_has_no_patches_and_no_pooled_data(file: Path):
    """A sinogram has no patches; and a geometry no other one's filter."""
    learned = "front_end=iradonmap"
    assert load_experiment(file, [learned]).front_end.settings.back_projection == "view"
    sentence = (
        r"training\.patch: the front end iradonmap needs the field 'sinogram', which cannot be cut "
        r"into patches because every ray crosses the whole image; set training\.patch to null"
    )
    with pytest.raises(PhysFedError, match=sentence):
        load_experiment(file, [learned, "training.patch=64"])
    with pytest.raises(PhysFedError, match=r"method\.name: the front end iradonmap .*pool"):
        load_experiment(file, [learned, "method=pooled"])
    with pytest.raises(PhysFedError, match=r"front_end\.name: iradonmap is private to each client"):
        load_experiment(file, [learned, "method=pooled", "clients=[{id: a, protocol: paper-1}]"])


@pytest.mark.parametrize(
    "other",
    ["data.test_patients=[B, A]", "data.validation_patients=[A]", "data.server_patients=[A]"],
)
def test_patients_must_not_overlap(file: Path, other: str):
    overrides = ["clients=[{id: a, protocol: paper-1, patients: [A]}]", other]
    for reuse in ("false", "true"):
        with pytest.raises(PhysFedError, match=r"patient 'A' is also in clients\.0\.patients"):
            load_experiment(file, [*overrides, f"data.reuse_patients={reuse}"])


def test_the_server_s_patients_count_and_have_pseudonyms(file: Path):
    experiment = load_experiment(file, ["data.server_patients=[A, B]"])
    assert experiment.needed_patients() == 2 + 2 + 2
    assert list(experiment.listed_patients()) == ["A", "B"]
    assert experiment.with_patients(str.lower).data.server_patients == ("a", "b")
    assert load_experiment(file, ["data.server_patients=3"]).needed_patients() == 2 + 3 + 2


def test_clients_without_full_dose_are_known_before_a_run(file: Path):
    bare = "{id: a, protocol: paper-1, labels: false}"
    two = f"clients=[{bare}, {{id: b, protocol: paper-2}}]"
    experiment = load_experiment(file, [two])
    assert [client.id for client in experiment.trainable] == ["b"]
    with pytest.raises(PhysFedError, match="clients: all have 'labels: false', and method fedavg"):
        load_experiment(file, [f"clients=[{bare}]"])
    with pytest.raises(PhysFedError, match=r"unseen\.0\.labels: an unseen protocol is only tested"):
        load_experiment(file, [f"unseen=[{bare}]"])


def test_clients_may_list_the_same_patient_where_patients_are_reused(file: Path):
    a, b = (f"{{id: {name}, protocol: paper-1, patients: [A]}}" for name in "ab")
    with pytest.raises(PhysFedError, match="also in"):
        load_experiment(file, [f"clients=[{a}, {b}]"])
    assert load_experiment(file, [f"clients=[{a}, {b}]", "data.reuse_patients=true"]).clients


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [a", "not valid YAML"),
        ("name: a\nname: b\n", "'name' is written twice"),
        ("- a\n", "must hold keys"),
        ("", "must hold keys"),
        ("data:\n\t- a\n", "line 2"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str, words: str):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(PhysFedError, match=words):
        load_experiment(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(PhysFedError, match=r"there is no experiment file .*nowhere\.yaml"):
        load_experiment(tmp_path / "nowhere.yaml")


def test_a_refusal_is_one_line_that_names_the_file(file: Path):
    with pytest.raises(PhysFedError) as refusal:
        load_experiment(file, ["training={lr: -1, rounds: x, epochs: 2}"])
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    for key in ("training.lr", "training.rounds", "training.epochs"):
        assert key in str(refusal.value)


def test_whole_images_must_be_large_enough_for_the_objective(file: Path):
    mixed = "training.objective={name: ssim_mixed, scales: 5}"
    assert load_experiment(file, [mixed, "data.image_size=176"]).training.patch is None
    with pytest.raises(PhysFedError, match=r"176 pixels a side, and data\.image_size is 128"):
        load_experiment(file, [mixed, "data.image_size=128"])


def values_of(annotation: object) -> st.SearchStrategy[object]:
    """Return a strategy for what may stand at a key, and much that may not."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return st.one_of([values_of(a) for a in typing.get_args(annotation)])
    if typing.get_origin(annotation) is typing.Annotated:
        return values_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return st.sampled_from(typing.get_args(annotation))
    simple = {
        bool: st.booleans(),
        int: st.integers(0, 300),
        float: st.floats(0, 1e4) | st.sampled_from([1e-12, 1e-3, 0.1, 0.5, 1.0]),
        type(None): st.none(),
    }
    return simple.get(annotation, st.nothing())  # type: ignore[call-overload]


def groups(name: str) -> st.SearchStrategy[dict[str, object]]:
    """Return a strategy for a group of keys: some are named, each with a value that it takes."""
    (model,) = models_in(Experiment.model_fields[name].annotation)

    def taken(key: str, value: object) -> bool:
        try:
            model.model_validate({key: value})
        except ValidationError as error:
            return not any(each["loc"] for each in error.errors())  # what does not fit another key
        return True

    keys = {
        key: values_of(field.annotation).filter(partial(taken, key))
        for key, field in model.model_fields.items()
        if not values_of(field.annotation).is_empty
    }
    return st.fixed_dictionaries({}, optional=keys)


@given(
    st.integers(0, 2**40),
    groups("training"),
    groups("federation"),
    st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z"),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12),
)
def test_any_experiment_that_is_read_is_written_and_read_alike(
    seed: int,
    training: dict[str, object],
    federation: dict[str, object],
    name: str,
    patient: str,
) -> None:
    content = yaml.safe_load(SMALLEST) | {
        "name": name, "seed": seed, "training": training, "federation": federation,
    }  # fmt: skip
    content["data"]["test_patients"] = [patient]
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError:
        assume(False)
        raise
    again = Experiment.model_validate(yaml.safe_load(experiment.to_yaml()))
    assert again == experiment
    assert again.to_yaml() == experiment.to_yaml()

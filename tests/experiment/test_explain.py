"""What pydantic finds becomes sentences that name the key, what is wrong and what would do."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import core_schema

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, checked, load_experiment
from physfed_ray.experiment.explain import WORDS, shown

SMALLEST = """
name: small
data: {source: {phantom: {patients: 4, slices: 2}}}
clients: [{id: a, protocol: paper-1}, {id: b, protocol: paper-2}]
method: {name: fedavg}
"""


def refusal(**changes: Any) -> str:
    content = yaml.safe_load(SMALLEST)
    for key, value in changes.items():
        node = content
        *path, last = key.split("__")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    with pytest.raises(PhysFedError) as refused:
        checked(content, Path())
    return str(refused.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training__rounds": "abc"}, "training.rounds: must be a whole number, not 'abc'"),
        ({"training__rounds": 2.5}, "training.rounds: must be a whole number, not 2.5"),
        ({"training__rounds": 0}, "training.rounds: must be greater than or equal to 1, not 0"),
        ({"training__rounds": [1]}, "training.rounds: must be a whole number, not [1]"),
        (
            {"training__rounds": "9" * 5000},
            f"training.rounds: must be a whole number of a sensible size, not '{'9' * 30}…' (5000 "
            "characters)",
        ),
        ({"training__lr": float("nan")}, "training.lr: must be a finite number, not .nan"),
        ({"training__lr": {}}, "training.lr: must be a number, not {}"),
        ({"training": 3}, "training: must be a group of keys, not 3"),
        ({"data__reuse_patients": 3}, "data.reuse_patients: must be true or false, not 3"),
        ({"data__source": "ct"}, "data.source: must be a group of keys, not 'ct'"),
        ({"data__source__dicom": 3}, "data.source.dicom: must be a path, not 3"),
        ({"data__window_hu": 3}, "data.window_hu: must be a list, not 3"),
        ({"data__window_hu": [1]}, "data.window_hu.1: this entry of the list is required"),
        ({"data__window_hu": [0, 1, 2]}, "data.window_hu: must be a list of at most 2, not [0, 1, "
         "2]"),
        ({"data__clinical_windows": [1]}, "data.clinical_windows: must be a group of keys, not "
         "[1]"),
        ({"data__clinical_windows": {1: [0, 400]}}, "data.clinical_windows.1: must be text (put it "
         "in quotes), not 1"),
        ({"data__clinical_windows": {"a": 3}}, "data.clinical_windows.a: must be a list, not 3"),
        ({"name": 3}, "name: must be text (put it in quotes), not 3"),
        ({"name": "a b"}, "name: must be letters, digits, '.', '_' and '-', beginning with one of "
         "the first two, not 'a b'"),
        ({"name": "a" * 101}, f"name: must be text of at most 100 characters, not '{'a' * 30}…' "
         "(101 characters)"),
        ({"clients": 3}, "clients: must be a list, not 3"),
        ({"clients": []}, "clients: must be a list of at least 1, not []"),
        ({"clients": [3]}, "clients.0: must be a group of keys, not 3"),
        ({"clients": [{"id": "a", "protocol": 3}]}, "clients.0.protocol: must be a group of keys, "
         "not 3"),
        ({"clients": [{"id": "a"}]}, "clients.0.protocol: this key is required"),
        ({"tracking": ["x"]}, "tracking.0: must be 'mlflow' or 'wandb', not 'x'"),
        ({"tracking": "x"}, "tracking: must be a list, not 'x'"),
        ({"provenance": 3}, "provenance: must be a group of keys, not 3"),
        ({"provenance": {1: 2}}, "provenance.1: must be text (put it in quotes), not 1"),
        ({"evaluation__metrics": [3]}, "evaluation.metrics.0: must be text (put it in quotes), not "
         "3"),
        ({"reports__pool__max_size": "x"}, "reports.pool.max_size: must be a whole number or "
         "'auto', not 'x'"),
        ({"reports__pool__gpus_per_reporter": -1}, "reports.pool.gpus_per_reporter: must be "
         "greater than or equal to 0 or 'auto', not -1"),
        ({"federation__availability": 3}, "federation.availability: must be a group of keys, not "
         "3"),
    ],
)  # fmt: skip
def test_a_finding_is_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert refusal(**changes) == sentence


def test_a_key_that_is_a_number_is_told_so() -> None:
    content = yaml.safe_load(SMALLEST) | {1: 2}
    with pytest.raises(PhysFedError, match=r"^1: a key here is a name, not a number; allowed: na"):
        checked(content, Path())


@pytest.mark.parametrize("ids", [[12], [1.5], [True], [yaml.safe_load("2020-01-02")]])
@pytest.mark.parametrize("key", ["data__test_patients", "clients"])
def test_an_id_that_yaml_reads_as_something_else_is_told_to_be_quoted(key: str, ids: list[Any]):
    listed = [{"id": "a", "protocol": "paper-1", "patients": ids}] if key == "clients" else ids
    assert "put it in quotes" in refusal(**{key: listed})


def test_many_findings_are_counted() -> None:
    wrong = {f"wrong{n}": 1 for n in range(10)}
    assert refusal(training=wrong).endswith("; and 6 more")


TALKS = {"missing", "extra_forbidden", "invalid_key", "value_error"}
READS_WELL = {
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error",
}  # fmt: skip


def kinds_of(schema: Any) -> set[str]:
    """Return the kinds of value that a schema of pydantic's core is made of."""
    found: set[str] = set()
    todo = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            if isinstance(node.get("type"), str):
                found.add(node["type"])
            todo += node.values()
        elif isinstance(node, list | tuple):
            todo += node
    return found


RAISES = {
    "bool": {"bool_parsing", "bool_type"},
    "dataclass": {"dataclass_type"},
    "dict": {"dict_type"},
    "float": {"float_parsing", "float_type", "finite_number"},
    "int": {"int_type", "int_parsing", "int_from_float", "int_parsing_size"},
    "is-instance": {"is_instance_of"},
    "literal": {"literal_error"},
    "model": {"model_type", "model_attributes_type"},
    "none": {"none_required"},
    "str": {"string_type", "string_unicode", "string_pattern_mismatch", "string_too_long",
            "string_too_short"},
    "tuple": {"tuple_type", "too_short", "too_long"},
}  # fmt: skip
"""Findings of each kind of value that the schema uses."""
PLUMBING = {
    "any", "dataclass-args", "dataclass-field", "default", "definition-ref", "definitions",
    "function-after", "function-before", "function-plain", "function-wrap", "json-or-python",
    "lax-or-strict", "model-field", "model-fields", "no-info", "nullable", "union", "with-info",
}  # fmt: skip
"""Kinds that find nothing themselves."""


def test_every_kind_of_finding_that_the_schema_can_make_has_words() -> None:
    used = kinds_of(Experiment.__pydantic_core_schema__)
    assert used - RAISES.keys() <= PLUMBING, "say in RAISES what it can find, and in WORDS how"
    findings = {name for kind in used & RAISES.keys() for name in RAISES[kind]}
    assert findings <= WORDS.keys() | READS_WELL
    known = set(get_args(core_schema.ErrorType))
    assert WORDS.keys() | READS_WELL | TALKS | set().union(*RAISES.values()) <= known | {
        "path_type"
    }


JARGON = ("Input should", "Keys should", "pydantic", "constrained", "function-", "[type=")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "id", "protocol", "patients", "generate", "views"])
        | st.integers(0, 3) | st.text(max_size=3), inner, max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip
PATHS = st.sampled_from(
    ["name", "seed", "data", "data.source", "data.source.dicom", "data.source.phantom", "clients",
     "data.test_patients", "data.window_hu", "data.clinical_windows", "clients.0", "unseen",
     "clients.0.id", "clients.0.protocol", "clients.0.protocol.views", "clients.0.patients",
     "backbone", "backbone.name", "method", "method.name", "method.weights", "training",
     "training.rounds", "training.objective", "training.lr", "federation", "federation.channel",
     "federation.availability", "federation.gpus_per_host", "evaluation", "evaluation.metrics",
     "tracking", "provenance", "reports", "reports.reporter", "reports.encoder", "reports.pool"]
)  # fmt: skip


@given(st.lists(st.tuples(PATHS, VALUES), min_size=1, max_size=3))
def test_any_content_is_an_experiment_or_one_line(changes: list[tuple[str, Any]]) -> None:
    content = yaml.safe_load(SMALLEST)
    content["clients"][0]["protocol"] = {
        "views": 64, "bins": 512, "pixel_mm": 0.66, "bin_mm": 0.72, "source_mm": 250,
        "detector_mm": 250, "photons": 1e5,
    }  # fmt: skip
    for key, value in changes:
        node: Any = content
        *path, last = key.split(".")
        for part in path:
            node = node[int(part)] if isinstance(node, list) and node else node
            node = node.setdefault(part, {}) if isinstance(node, dict) and part != "0" else node
        if isinstance(node, dict):
            node[last] = value
    told, read = "", None
    try:
        read = checked(content, Path())
    except PhysFedError as error:
        told = str(error)
    assert len(told) < 4000
    assert not [jargon for jargon in JARGON if jargon in told]
    if read is not None:
        again = checked(yaml.safe_load(read.to_yaml()), Path())
        assert again.to_yaml() == read.to_yaml()


def test_names_of_protocols_make_clients(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SMALLEST)
    one = load_experiment(tmp_path / "a.yaml", ["clients=[paper-1, paper-2]", "unseen=[unseen-3]"])
    assert [client.id for client in one.clients] == ["paper-1", "paper-2"]
    mixed = "clients=[{id: a, protocol: paper-1, patients: 1}, 'paper-[23]']"
    two = load_experiment(tmp_path / "a.yaml", [mixed])
    assert [client.id for client in two.clients] == ["a", "paper-2", "paper-3"]
    with pytest.raises(PhysFedError, match=r"clients\.1: no protocol is named 'papr-2'.*'paper-2'"):
        load_experiment(tmp_path / "a.yaml", ["clients=[paper-1, papr-2]"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        (3, "3"),
        (None, "null"),
        (True, "true"),
        ([1, "a"], "[1, a]"),
        ({"a": [1, [2, [3]]]}, "{a: [1, …]}"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, …]"),
    ],
    ids=str,
)
def test_a_value_is_shown_as_a_file_has_it_and_cut_short(value: object, text: str) -> None:
    assert shown(value).replace("'…'", "…").replace('"…"', "…") == text


def test_a_number_of_endless_digits_is_shown_by_its_size() -> None:
    assert shown(10**6000) == "a number of 19932 bits"

"""No id of a patient in anything that a run writes; its pseudonym serves wherever an id does."""

import io
import re
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import BaseModel
from safetensors.numpy import load_file

from physfed_ray.data.patient import pseudonym
from physfed_ray.data.plan import plan
from physfed_ray.data.pseudonyms import (
    LISTS,
    identified,
    listed_pseudonym,
    pseudonymous,
    pseudonymous_command,
    pseudonymous_keys,
    pseudonymous_override,
)
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.experiment.explain import nested_model
from physfed_ray.experiment.pretrain import Pretrain
from physfed_ray.runtime.run import run_experiment
from tests.data.conftest import WriteCT

JANE, JOHN, ANNA, ERIK = "DOE^JANE 19500101", "DOE^JOHN", "123456789012", "O'BRIEN^ERIK"
EXPERIMENT = f"""
name: tiny
data:
  source: {{dicom: ct}}
  image_size: 48
  test_patients: ["{JANE}"]
  validation_patients: ["{JOHN}"]
  cache: cache
clients:
  - {{id: c1, protocol: paper-2, patients: ["{ANNA}"]}}
  - {{id: c2, protocol: paper-6, patients: ["{ERIK}"]}}
backbone: {{channels: 4}}
method: {{name: fedper}}
training: {{rounds: 1, batch_size: 2, patch: 32, evaluate_every: 1}}
"""


@pytest.fixture(autouse=True)
def salt(monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setenv("PHYSFED_SALT", "of the tests")
    return b"of the tests"


@pytest.fixture
def file(tmp_path: Path, write_ct: WriteCT) -> Path:
    y, x = np.mgrid[:48, :48] - 23.5
    body = np.where(np.hypot(x, y) < 18, 40.0, -1000.0).astype(np.float32)
    for number, patient in enumerate((JANE, JOHN, ANNA, ERIK)):
        for z in range(2):
            path = tmp_path / "ct" / f"{number}-{z}.dcm"
            write_ct(path, body + 10 * number, patient=patient, series=f"{number}", z_mm=5.0 * z)
    path = tmp_path / "tiny.yaml"
    path.write_text(EXPERIMENT)
    return path


def text_of(path: Path) -> str:
    """Return all that a file says, also where it is compressed."""
    raw = path.read_bytes()
    text = raw.decode("utf-8", "replace") + raw.decode("utf-16-le", "replace")
    if path.suffix == ".parquet":
        text += str(pq.read_table(path).to_pylist()) + str(pq.read_schema(path).metadata)
    if path.suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            parts = [archive.read(name) for name in archive.namelist()]
        text += "".join(p.decode("utf-8", "replace") + p.decode("utf-32", "replace") for p in parts)
    return text


def names_in(folder: Path) -> list[tuple[str, str]]:
    """Return every mention of a patient below a folder: the file and the id."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            text = str(path.relative_to(folder)) + text_of(path)
            found += [
                (path.name, name)
                for name in (JANE, JOHN, ANNA, ERIK, "DOE^", "BRIEN")
                if name in text
            ]
    return found


def test_a_run_directory_names_no_patient_and_can_be_run_again(file: Path, salt: bytes) -> None:
    experiment = load_experiment(file)
    overrides = f"""--set data.test_patients='["{JANE}"]' --set 'clients.0.patients=["{ANNA}"]'"""
    command = f"physfed run tiny.yaml {overrides}"
    first, again = file.parent / "first", file.parent / "again"
    run_experiment(experiment, first, runtime="inline", command=command)
    assert names_in(first) == []
    kept = load_experiment(first / "experiment.yaml")
    assert kept.data.test_patients == (f"pseudonym:{pseudonym(JANE, salt)}",)
    assert pseudonym(JANE, salt) in text_of(first / "report.html")

    # The same with the user's own file, and with the file that the run left.
    run_experiment(experiment, first, runtime="inline", resume=True, tested=False)
    run_experiment(kept, first, runtime="inline", resume=True, tested=False)
    assert names_in(first) == []
    run_experiment(kept, again, runtime="inline", tested=False)
    for name in ("server", "clients/c1", "clients/c2"):
        weights = [
            load_file(out / "checkpoints/round-0001" / f"{name}.safetensors")
            for out in (first, again)
        ]
        assert weights[0].keys() == weights[1].keys()
        assert all(np.array_equal(value, weights[1][key]) for key, value in weights[0].items())


def test_resuming_with_other_patients_or_another_salt_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, out = load_experiment(file), file.parent / "out"
    run_experiment(experiment, out, runtime="inline", tested=False)
    other = load_experiment(file, [f'data.test_patients=["{JOHN}"]', "data.validation_patients=0"])
    refused = r"other settings \(data.test_patients, data.validation_patients\)"
    with pytest.raises(PhysFedError, match=refused):
        run_experiment(other, out, runtime="inline", resume=True)
    monkeypatch.setenv("PHYSFED_SALT", "another")
    with pytest.raises(PhysFedError, match=r"clients.0.patients.*which PHYSFED_SALT decides"):
        run_experiment(experiment, out, runtime="inline", resume=True)


def test_a_run_that_an_older_version_wrote_with_ids_goes_on_without_them(file: Path) -> None:
    experiment, out = load_experiment(file), file.parent / "out"
    run_experiment(experiment, out, runtime="inline", tested=False)
    (out / "experiment.yaml").write_text(experiment.to_yaml())
    assert names_in(out)
    run_experiment(experiment, out, runtime="inline", tested=False, resume=True)
    assert names_in(out) == []


def test_pseudonyms_are_taken_for_the_patients_that_they_stand_for(file: Path) -> None:
    experiment = load_experiment(file)
    hidden = pseudonymous(experiment)
    assert pseudonymous(hidden) == hidden != experiment
    assert identified(hidden, (JANE, JOHN, ANNA, ERIK)) == experiment
    assert identified(experiment, ()) is experiment
    assert plan(hidden).files == plan(experiment).files
    assert plan(hidden).root == plan(experiment).root
    with pytest.raises(PhysFedError, match=r"lists 'pseudonym:.*PHYSFED_SALT to the salt"):
        identified(hidden, (JOHN, ANNA, ERIK))


def test_numbers_of_patients_stay(file: Path) -> None:
    counted = ["data.test_patients=1", "data.validation_patients=0", "clients=paper-[12]"]
    experiment = load_experiment(file, counted)
    assert pseudonymous(experiment) is experiment


def test_every_list_of_patients_in_the_schema_is_known(file: Path) -> None:
    """A key that lists patients is called so, and ``with_patients`` reaches it."""

    def lists(model: type[BaseModel]) -> set[str]:
        found = {key for key in model.model_fields if re.search("patient", key)}
        inner = (nested_model(field.annotation) for field in model.model_fields.values())
        return found.union(*(lists(group) for group in inner if group is not None))

    numbers = {"slices_per_patient", "reuse_patients"}
    assert lists(Experiment).union(lists(Pretrain)) - numbers == set(LISTS)
    renamed = load_experiment(file).with_patients(lambda patient: "hidden " + patient)
    assert set(renamed.listed_patients()) == {f"hidden {p}" for p in (JANE, JOHN, ANNA, ERIK)}
    assert all(patient not in renamed.to_yaml().replace(f"hidden {patient}", "")
               for patient in (JANE, JOHN, ANNA, ERIK))  # fmt: skip


@pytest.mark.parametrize(
    "override",
    [
        f'data.test_patients=["{JANE}"]',
        f"data.test_patients.0={JANE}",
        f'data={{source: {{dicom: ct}}, validation_patients: ["{JANE}", B]}}',
        f'clients=[{{id: a, protocol: paper-1, patients: ["{JANE}"]}}]',
        f'settings={{data.test_patients: ["{JANE}"]}}',
        f'experiment.data.test_patients=["{JANE}"]',
    ],
)
def test_commands_are_kept_without_ids(override: str, salt: bytes) -> None:
    hidden = pseudonymous_override(override)
    assert "DOE" not in hidden
    assert f"pseudonym:{pseudonym(JANE, salt)}" in hidden
    assert pseudonymous_override(hidden) == hidden
    yaml.safe_load(hidden.partition("=")[2])
    for words in (f"--set '{override}'", f"'--set={override}'"):
        command = pseudonymous_command(f"physfed run a.yaml {words} --out 'b c'")
        assert "DOE" not in command
        assert command.startswith("physfed run a.yaml ")
        assert shlex.split(command)[3].startswith("--set")
        assert command.endswith("--out 'b c'")


@pytest.mark.parametrize(
    "command",
    [
        "physfed run a.yaml --set data.test_patients=2 --out 'b  c'",
        "physfed run a.yaml --set data.source.phantom.patients=auto",
        "physfed run a.yaml --set method.tau=0.1 --set 'broken=[' --resume",
        "an unclosed 'quote",
        "",
    ],
)
def test_other_commands_stay_as_they_are(command: str) -> None:
    assert pseudonymous_command(command) == command


def test_what_only_looks_like_a_pseudonym_is_hidden(salt: bytes) -> None:
    listed = listed_pseudonym("A1", salt)
    assert listed_pseudonym(listed, salt) == listed
    for patient in ("3f0a91c2d4e5", "pseudonym:DOE^JANE", "pseudonym:3F0A91C2D4E5"):
        assert listed_pseudonym(patient, salt) == f"pseudonym:{pseudonym(patient, salt)}"
    assert pseudonymous_keys({"patients": ["A1", 3]}) == {"patients": [listed, 3]}

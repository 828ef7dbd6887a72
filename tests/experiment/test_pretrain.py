"""The file of ``physfed pretrain``: what is refused, and in which words."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from physfed_ray.cli import main
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.experiment.pretrain import (
    ClientImages,
    Pretrain,
    PretrainData,
    PretrainTraining,
    load_pretrain,
)
from tests.assets.small import register

FILE: dict[str, Any] = {
    "pretrain": "tiny",
    "asset": "small",
    "data": {"source": {"phantom": {"patients": 4, "slices": 2}}, "image_size": 64},
}


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.mark.parametrize("group", [Pretrain, PretrainData, ClientImages, PretrainTraining])
def test_every_key_is_described(group: type[Pretrain]) -> None:
    assert all(field.description for field in group.model_fields.values())


def test_defaults_and_paths(tmp_path: Path) -> None:
    content = FILE | {"data": {"client": {"experiment": "e.yaml", "id": "a"}}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    read = load_pretrain(tmp_path / "p.yaml", ["training.steps=5", "asset={name: small}"])
    assert read.data.client is not None
    assert read.data.client.experiment == tmp_path / "e.yaml"
    assert (read.training.steps, read.training.betas) == (5, (0.9, 0.999))
    assert read.data.held_out_patients == 1


CLIENT = {"client": {"experiment": "e.yaml", "id": "a"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"asset": "smal"}, "asset.name: unknown recipe 'smal' (did you mean 'small'?)"),
        ({"asset": {"name": "small", "channels": 0}}, "asset.channels: must be"),
        ({"protocols": ["paper-1"]}, "the recipe small reads full-dose images alone"),
        ({"asset": "small_scanned"}, "the recipe small_scanned reads low-dose images"),
        ({"asset": "small_scanned", "protocols": ["paper-1", "paper-1"]}, "is used twice"),
        (
            {
                "asset": "small_scanned",
                "protocols": [{"id": "a", "protocol": "paper-1", "patients": 3}],
            },
            "protocols.0.patients: a protocol here has an 'id' and a 'protocol' alone",
        ),
        ({"data": {}}, "data: give one of 'source'"),
        ({"data": FILE["data"] | CLIENT}, "data: give one of 'source'"),
        ({"data": CLIENT | {"image_size": 64}}, "'image_size' is what the experiment"),
        ({"data": {"source": {"pairs": "x"}}}, "pretraining reads full-dose images"),
        ({"data": {"source": {"phantom": {"patients": "auto"}}}}, "must be a number here"),
        ({"data": FILE["data"] | {"held_out_patients": 0}}, "data.held_out_patients: must be"),
        ({"data": FILE["data"] | {"test_patients": 1}}, "data.test_patients: unknown key"),
        ({"training": {"betas": [0.9, 1.0]}}, "training.betas: must be two numbers"),
        ({"training": {"steps": 0}}, "training.steps: must be"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(FILE | changes))
    with pytest.raises(PhysFedError) as error:
        load_pretrain(tmp_path / "p.yaml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_each_command_takes_its_own_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(FILE))
    with pytest.raises(PhysFedError, match="which `physfed pretrain` takes"):
        load_experiment(tmp_path / "p.yaml")
    assert main(["pretrain", "quickstart"]) == 2
    assert "is no file for `physfed pretrain`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.held_out_patients=4"], "there are 4 patient(s), and 4 cannot be held out"),
        (["data.held_out_patients=[nobody]"], "'nobody', which the data do not have"),
    ],
)
def test_too_few_patients_are_told_before_any_work(
    tmp_path: Path, overrides: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(FILE))
    sets = [word for override in overrides for word in ("--set", override)]
    out = ["--out", str(tmp_path / "run"), "--runtime", "inline"]
    assert main(["pretrain", str(tmp_path / "p.yaml"), *sets, *out]) == 2
    assert words in capsys.readouterr().err

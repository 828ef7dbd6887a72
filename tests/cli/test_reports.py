"""``physfed reports`` as a user meets it: what it takes, what it writes, what it refuses."""

from pathlib import Path

import pytest

from physfed_ray.cli import main
from physfed_ray.data.prepare import prepare
from physfed_ray.data.prepared import MANIFEST
from physfed_ray.data.store import read_client_data
from physfed_ray.experiment import load_experiment

EXPERIMENT = """
name: tiny
data:
  source: {phantom: {patients: 3, slices: 2}}
  image_size: 32
  test_patients: 1
  cache: cache
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
method: {name: fedavg}
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an experiment file whose data are prepared already."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    path.write_text(EXPERIMENT)
    prepare(load_experiment(path))
    return path


def reports(*arguments: object) -> int:
    return main(["reports", *(str(a) for a in arguments), "--runtime", "inline"])


def test_an_experiment_a_run_and_prepared_data_give_the_same_slices(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_experiment(experiment)
    prepared = prepare(loaded)
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.yaml").write_text(loaded.to_yaml())
    articles = []
    for target in (experiment, run, prepared.root):
        page = tmp_path / "page.html"
        assert reports(target, "--show", 4, "--out", page) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(page)
        text = page.read_text(encoding="utf-8")
        assert ("minilm" in text) == (target != prepared.root)
        articles.append(text.split("<article>")[1:])
    assert articles[0] == articles[1] == articles[2]
    assert len(articles[0]) == 4
    train = prepared.clients[0].train
    assert train is not None
    assert any(read_client_data(train).report[0] in text for text in articles[0])


def test_what_is_missing_is_prepared_and_cached_for_the_next_time(
    experiment: Path, tmp_path: Path
) -> None:
    changes = ["--set", f"data.cache={tmp_path / 'new'}", "--out", tmp_path / "page.html"]
    assert reports(experiment, *changes) == 0
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("*.arrow")}
    assert list((tmp_path / "new").rglob(MANIFEST))
    assert reports(experiment, *changes) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("*.arrow")} == first


def test_without_out_the_page_lies_in_the_present_folder(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reports(experiment) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["reports.html"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.yaml"], "nowhere.yaml"),
        (["."], "is neither a run directory"),
        (["tiny.yaml", "--set", "reports.encoder=none"], "unknown encoder 'none'"),
        (["tiny.yaml", "--out", "tiny.yaml/page.html"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(
    experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(
        EXPERIMENT.replace("cache: cache", f"cache: {experiment.parent / 'cache'}")
    )
    assert reports(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("physfed: error: ")
    assert sentence in line


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
def test_the_number_of_slices_is_checked(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        reports("tiny.yaml", f"--show={count}")
    assert stop.value.code == 2
    assert "whole number of at least 1" in capsys.readouterr().err

"""Enrolling as a whole: what it writes, that it repeats, what it refuses, what it survives."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.data.prepare import prepare
from physfed_ray.data.store import read_client_data
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.metrics.scoring import score_slices
from physfed_ray.rundir.lock import alone
from physfed_ray.rundir.long_table import SLICE_COLUMNS
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.run import run_experiment
from physfed_ray.serving.enrol import run as work
from physfed_ray.serving.enrol.patients import Dealing, client_experiment, dealt, phantom_seed
from physfed_ray.serving.trained import load_run
from tests.serving.enrol.conftest import SCANNERS, TinyRun, means

FILES = ("client.json", "private.safetensors", "scores.parquet")


def written(tiny: TinyRun, name: str = "north") -> list[bytes]:
    return [(tiny.root / "enrolled" / name / file).read_bytes() for file in FILES]


def test_the_curve_and_the_files_that_it_leaves(tiny: TinyRun) -> None:
    told: list[str] = []
    card = tiny.enrol(
        phantoms=6, rounds=3, curve=None, on_event=lambda event: told.append(event.get("text", ""))
    )
    splits = [result.split for result in card.results]
    assert splits == ["input", "unseen/nearest_protocol", *(f"enrolled/{n}" for n in (1, 2, 4))]
    assert [len(card.patients[split]) for split in ("train", "validation", "test")] == [4, 1, 1]
    everyone = [name for names in card.patients.values() for name in names]
    assert len(set(everyone)) == 6
    assert [result.slices for result in card.results[2:]] == [2, 4, 8]
    assert "phantoms, drawn from a seed of the client's own" in card.known
    assert any(text.startswith("enrolled with 4 patients: round ") for text in told)
    table = RunDirectory(tiny.root).read_table("enrolled/north/scores.parquet", SLICE_COLUMNS)
    assert table.distinct("split") == splits
    for result in card.results:
        of_patient = table.where(split=result.split, metric="psnr").means("patient")
        assert of_patient == pytest.approx(result.scores["psnr"])
    content = "".join(part.decode("utf-8", "replace") for part in written(tiny))
    assert "phantom-0" not in content


def test_the_scores_are_those_of_the_client_s_denoiser(tiny: TinyRun) -> None:
    card = tiny.enrol(rounds=3)
    run = load_run(tiny.root)
    assert (run.enrolled, run.clients) == (("north",), ("c-paper-1", "c-paper-3"))
    assert run.protocol("north") == card.protocol == SCANNERS["unseen-2"]
    dealing = Dealing(None, 4, seed=phantom_seed(1, "north"))
    settings = RunDirectory(tiny.root).read_yaml("experiment.yaml")
    asked = client_experiment(settings, run.card, "north", card.protocol, dealing)
    (client,) = prepare(dealt(asked, dealing)[0]).clients
    assert client.test is not None
    data = read_client_data(client.test)
    window = run.card.window_hu
    for split, denoiser in (
        ("enrolled/2", run.denoiser("north")),
        ("unseen/nearest_protocol", run.denoiser(protocol=card.protocol)),
    ):
        found = score_slices(denoiser.denoise(data.low), data.full, data.body, window, {})
        assert means(card, split) == {data.patient[0]: float(found["psnr"].mean())}
    assert str(run.denoiser("north").choice) == "the model of client north"
    assert not np.array_equal(tiny.denoised("north"), tiny.denoised("c-paper-1"))


def test_the_same_twice_gives_the_same_bits_and_another_seed_others(tiny: TinyRun) -> None:
    tiny.enrol()
    first = written(tiny)
    with pytest.raises(PhysFedError, match=r"'north' is enrolled .* or --again to replace it"):
        tiny.enrol()
    tiny.enrol(again=True)
    assert written(tiny) == first
    tiny.enrol(again=True, seed=2)
    assert written(tiny)[1] != first[1]


def test_an_interrupted_enrolment_leaves_no_client_and_begins_anew(
    tiny: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.enrol(name="whole")
    with monkeypatch.context() as broken:
        broken.setattr(work, "write_card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny.enrol()
    assert load_run(tiny.root).enrolled == ("whole",)
    with pytest.raises(PhysFedError, match="no client 'north'"):
        load_run(tiny.root).denoiser("north")
    tiny.enrol()
    interrupted = written(tiny)
    tiny.enrol(again=True)
    assert written(tiny) == interrupted


def test_only_one_process_enrols_at_a_time(tiny: TinyRun) -> None:
    with (
        alone(tiny.root / "enrolled"),
        pytest.raises(PhysFedError, match="another `physfed` is at work in"),
    ):
        tiny.enrol()


def test_a_client_belongs_to_the_round_that_it_was_enrolled_to(
    trained: Callable[..., TinyRun],
) -> None:
    tiny = trained("fedper")
    card = tiny.enrol()
    assert card.base.round == 1
    longer = tiny.experiment.model_copy(
        update={"training": tiny.experiment.training.model_copy(update={"rounds": 2})}
    )
    run_experiment(longer, tiny.root, runtime="inline", tested=False, resume=True)
    run = load_run(tiny.root)
    with pytest.raises(PhysFedError, match=r"enrolled to round 1 .* \(round 2\): .* --again"):
        run.denoiser("north")
    assert run.denoiser("c-paper-1").choice.client == "c-paper-1"
    assert tiny.enrol(again=True).base.round == 2
    load_run(tiny.root).denoiser("north")


def test_a_damaged_client_is_told_and_no_other_one_is_touched(tiny: TinyRun) -> None:
    tiny.enrol()
    folder = tiny.root / "enrolled" / "north"
    weights = bytearray((folder / FILES[1]).read_bytes())
    weights[-1] ^= 1
    (folder / FILES[1]).write_bytes(weights)
    run = load_run(tiny.root)
    with pytest.raises(DamagedError, match=r"private\.safetensors is damaged .* with --again"):
        run.denoiser("north")
    run.denoiser("c-paper-3")
    values = json.loads((folder / FILES[0]).read_text())
    (folder / FILES[0]).write_text(json.dumps(values | {"id": "south"}))
    with pytest.raises(DamagedError, match=r"client\.json is damaged"):
        run.denoiser("north")
    tiny.enrol(again=True)
    load_run(tiny.root).denoiser("north")


def test_starting_from_the_nearest_client_is_asked_for(
    tiny: TinyRun, trained: Callable[..., TinyRun]
) -> None:
    near = tiny.enrol(start="nearest")
    assert near.start == "nearest"
    own = tiny.enrol(name="own")
    assert near.results[-1].validation[0] > own.results[-1].validation[0]
    with pytest.raises(PhysFedError, match=r"FedAvg shares its whole network, .* --start out"):
        trained("fedavg").enrol(start="nearest")


def test_fresh_noise_is_drawn_as_in_the_run(trained: Callable[..., TinyRun]) -> None:
    private = []
    for noise in ("fixed", "fresh"):
        tiny = trained("fedper", data={"noise": noise})
        assert tiny.enrol().settings["noise"] == noise
        private.append(written(tiny)[1])
        shutil.rmtree(tiny.root)
    assert private[0] != private[1]


def test_a_bucket_takes_clients_as_a_folder_does(tiny: TinyRun) -> None:
    tiny.enrol()
    bucket = RunDirectory("memory://enrol/run")
    for path in tiny.root.rglob("*"):
        if path.is_file():
            bucket.write(path.relative_to(tiny.root).as_posix(), path.read_bytes())
    assert load_run(bucket.root).enrolled == ("north",)
    data = tiny.test_data()
    images = load_run(bucket.root).denoiser("north", device="cpu").denoise(data.low)
    assert np.array_equal(images, tiny.denoised("north"))


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"name": "c-paper-1"}, "is a training client of .*: give another --id"),
        ({"name": "../north"}, r"'\.\./north' is no name for a client"),
        ({"phantoms": 2}, "2 patients, and enrolling needs at least 3"),
        ({"dealing": Dealing(None, 4, test=3, validation=1)}, "leave none to train on"),
        ({"curve": (3,)}, "--curve 3 is not possible: the client has 2 training patients"),
        ({"protocol": "paper-9"}, "no protocol is named 'paper-9'"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_any_work(
    wish: dict[str, Any], said: str, tiny: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(*_: object, **__: object) -> None:
        raise AssertionError("scanned")

    monkeypatch.setattr(work, "prepare", scan)
    with pytest.raises(PhysFedError, match=said) as refusal:
        tiny.enrol(**wish)
    assert "\n" not in str(refusal.value)
    assert load_run(tiny.root).enrolled == ()


def test_a_scanner_that_the_run_s_networks_cannot_be_told_is_refused(
    tiny: TinyRun, tmp_path: Path
) -> None:
    short = tmp_path / "short.yaml"
    numbers = replace(SCANNERS["unseen-2"], arc_deg=220).values()
    short.write_text("protocol:\n" + "".join(f"  {k}: {v}\n" for k, v in numbers.items()))
    with pytest.raises(PhysFedError, match="arc_deg=220 cannot be told to this model"):
        tiny.enrol(protocol=str(short))


def test_a_run_without_rounds_is_refused(tiny: TinyRun) -> None:
    for manifest in tiny.root.glob("checkpoints/*/state.json"):
        manifest.unlink()
    (tiny.root / "summary.json").unlink(missing_ok=True)
    with pytest.raises(PhysFedError, match="holds no completed round yet"):
        tiny.enrol()


def test_a_folder_of_real_ct_is_scanned_as_the_run_s_patients_were(
    real_ct: Path, tiny: TinyRun
) -> None:
    folder = real_ct / "covid_19_ny_sbu"
    card = tiny.enrol(dealing=Dealing(folder, test=2), rounds=1)
    assert [len(names) for names in card.patients.values()] == [5, 1, 2]
    assert set(card.patients["test"].values()) == {2}
    assert "none has the pseudonym of a patient of the run" in card.known
    content = b"".join(written(tiny))
    assert not any(
        path.name.encode() in content for path in (real_ct / "covid_19_ny_sbu").iterdir()
    )

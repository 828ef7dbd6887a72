"""Pretraining: an asset from a file, resumed to the same bits, and what an experiment does with it.

One small asset serves most tests; each experiment on it is two rounds of two small clients.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
import yaml

from physfed_ray.assets.store import FOLDER_VARIABLE, Asset, read_asset
from physfed_ray.data.prepare import prepare
from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import load_experiment
from physfed_ray.experiment.pretrain import load_pretrain
from physfed_ray.rundir.model import read_card
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime import files
from physfed_ray.runtime.pretrain import run_pretrain
from physfed_ray.runtime.run import run_experiment
from physfed_ray.runtime.submission import make_job
from physfed_ray.screen.assets import print_assets
from physfed_ray.screen.describe import print_description
from physfed_ray.serving.trained import load_run
from tests.assets.small import register

FILE = {
    "pretrain": "tiny",
    "seed": 7,
    "asset": {"name": "small", "channels": 3, "noise": 0.05},
    "data": {"source": {"phantom": {"patients": 4, "slices": 2}}, "image_size": 64},
    "reports": {"encoder": "hashed"},
    "training": {"steps": 12, "batch_size": 3, "evaluate_every": 4, "checkpoint_every": 4},
}
EXPERIMENT = {
    "name": "uses",
    "seed": 1,
    "data": {
        "source": {"phantom": {"patients": 6, "slices": 2}},
        "image_size": 64,
        "test_patients": ["phantom-00"],
    },
    "clients": [
        {"id": "a", "protocol": "paper-2", "patients": ["phantom-01", "phantom-02"]},
        {"id": "b", "protocol": "paper-6", "patients": ["phantom-03"]},
    ],
    "reports": {"encoder": "hashed"},
    "backbone": {"channels": 2},
    "method": {"name": "fedavg"},
    "training": {"rounds": 1, "batch_size": 4},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with its own cache, in which the small recipe has a name."""
    folder = tmp_path_factory.mktemp("pretrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHYSFED_CACHE", str(folder / "cache"))
        register(patch)
        yield folder


@pytest.fixture(scope="module")
def asset(world: Path) -> Asset:
    """Return an asset of four phantoms of seed 7."""
    return run_pretrain(load(world, FILE), world / "whole", runtime="inline")


def write(folder: Path, name: str, content: dict) -> Path:
    """Write a YAML file."""
    (folder / name).write_text(yaml.safe_dump(content))
    return folder / name


def load(folder: Path, content: dict, *overrides: str):
    """Return a pretraining from its keys."""
    return load_pretrain(write(folder, "pretrain.yaml", content), overrides)


def test_an_asset_holds_the_trained_network_and_says_what_it_is(world: Path, asset: Asset) -> None:
    about = read_asset(asset.name).about
    assert about.data["trained"] == {"patients": 3, "slices": 6}
    assert about.data["held_out"] == {"patients": 1, "slices": 2}
    assert len(about.patients) == 4
    assert set(about.words["regions"]) <= {"chest", "abdomen", "pelvis", "head"}
    network = asset.network()
    assert not hasattr(network, "training_only")
    assert network.mean.shape == (1, 64, 64)
    assert (world / "whole" / f"{asset.name}.safetensors").read_bytes() == asset.path.read_bytes()
    page = (world / "whole" / "report.html").read_text()
    assert asset.name in page
    assert "Held-out slices" in page
    assert "private" not in page
    losses = (world / "whole" / "losses.csv").read_text().splitlines()
    assert len([line for line in losses if ",loss_1," in line]) == 12
    assert len([line for line in losses if "held out" in line]) == 3


def test_a_stopped_pretraining_goes_on_to_the_same_bits(world: Path, asset: Asset) -> None:
    def stop(event: Event) -> None:
        if event.get("step") == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pretrain(load(world, FILE), world / "cut", runtime="inline", on_event=stop)
    said: list[Event] = []
    again = run_pretrain(
        load(world, FILE, "training.checkpoint_every=5"),
        world / "cut",
        resume=True,
        runtime="inline",
        on_event=said.append,
    )
    assert {"event": "message", "text": "going on after step 4"} in said
    assert again.name == asset.name  # the hash of all bytes
    whole = (world / "whole" / "losses.csv").read_text()
    assert (world / "cut" / "losses.csv").read_text() == whole


@pytest.mark.parametrize(
    ("overrides", "resume", "words"),
    [
        ((), False, "already holds a pretraining: add --resume"),
        (("training.lr=0.1",), True, "other settings (training.lr)"),
        (("training.steps=5",), True, "other settings (training.steps)"),
    ],
)
def test_a_folder_in_use_is_refused(
    world: Path, asset: Asset, overrides: tuple[str, ...], resume: bool, words: str
) -> None:
    with pytest.raises(PhysFedError) as error:
        run_pretrain(
            load(world, FILE, *overrides), world / "whole", resume=resume, runtime="inline"
        )
    assert words in str(error.value)


def test_a_loss_that_is_not_finite_is_one_sentence(world: Path) -> None:
    wild = load(world, FILE, "training.lr=0.999", "training.steps=200", "asset.channels=64")
    wild = wild.model_copy(
        update={"training": wild.training.model_copy(update={"lr": 1e20, "steps": 20})}
    )
    with pytest.raises(PhysFedError, match=r"in step \d+ of the pretraining: lower training.lr"):
        run_pretrain(wild, world / "wild", runtime="inline")


def test_a_clients_images_leak_and_everything_says_so(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(world, "experiment.yaml", EXPERIMENT)
    content = FILE | {
        "data": {"client": {"experiment": "experiment.yaml", "id": "a"}},
        "asset": {"name": "small_scanned"},
        "protocols": ["paper-2", "paper-6"],
    }
    said: list[Event] = []
    made = run_pretrain(
        load(world, content), world / "client", runtime="inline", on_event=said.append
    )
    assert made.about.data["whose"] == "1 training patients of client a of uses"
    assert made.about.data["trained"] == {"patients": 1, "slices": 2}
    assert list(made.about.data["protocols"]) == ["paper-2", "paper-6"]
    leak = made.about.data["leak"]
    assert "private images of client a of uses" in leak
    assert {"event": "message", "text": leak} in said
    assert leak in (world / "client" / "report.html").read_text()
    print_assets()
    assert f"{made.name}: small_scanned" in capsys.readouterr().out
    used = write(world, "own.yaml", EXPERIMENT | uses(made))
    prepare(load_experiment(used))  # the client's own training patients are none of the test


def uses(asset: Asset) -> dict:
    """Return the keys that let an experiment learn by an asset."""
    training = {"objective": {"name": "judged", "asset": asset.name}}
    return {"training": EXPERIMENT["training"] | training}


def test_an_experiment_carries_its_asset_along(
    world: Path, asset: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(world, "uses.yaml", EXPERIMENT | uses(asset))
    experiment = load_experiment(path)
    print_description(experiment)
    assert f"asset: {asset.name} of training.objective" in " ".join(capsys.readouterr().out.split())
    run = run_experiment(experiment, world / "run", runtime="inline", page=False)
    directory = RunDirectory(run)
    assert read_card(directory).assets == (asset.name,)
    assert directory.read(f"assets/{asset.name}.safetensors") == asset.path.read_bytes()
    losses = directory.read_table("metrics.parquet").where(split="train", metric="judged")
    assert len(losses) == 2
    # Where the folder of assets is empty, the run directory is enough.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHYSFED_CACHE", str(tmp_path))
        patch.setattr("physfed_ray.assets.store._ALSO_IN", {})
        load_run(run)
        assert read_asset(asset.name).path.parent == world / "run" / "assets"


def test_a_job_of_a_cluster_takes_the_asset_along(
    world: Path, asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(world, "uses.yaml", EXPERIMENT | uses(asset))
    job = make_job(path, (), None, resume=False, command="physfed submit uses.yaml")
    assert job.environment[FOLDER_VARIABLE] == "."
    with job.working_directory() as folder:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PHYSFED_CACHE", str(tmp_path))
        monkeypatch.setenv(FOLDER_VARIABLE, ".")
        monkeypatch.setattr("physfed_ray.assets.store._ALSO_IN", {})
        assert read_asset(asset.name).path.parent == folder.resolve()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("training.objective.asset=small-000000000000",), "there is no asset"),
        (("training.objective.asset=mine",), "an asset is named as `physfed assets` prints it"),
        (("data.window_hu=[-500, 500]",), "with window_hu [-1000.0, 2000.0]"),
        (("seed=7",), "1 of the experiment's 1 test patients"),
        (("seed=7", "data.test_patients=[phantom-05]", "data.validation_patients=[phantom-00]"),
         "1 of the experiment's 1 validation patients"),
    ],
)  # fmt: skip
def test_an_asset_that_does_not_fit_is_refused(
    world: Path, asset: Asset, overrides: tuple[str, ...], words: str
) -> None:
    """The phantoms of seed 7 are those that the asset has learned from."""
    path = write(world, "refused.yaml", EXPERIMENT | uses(asset))
    with pytest.raises(PhysFedError) as error:
        prepare(load_experiment(path, overrides))
    assert words in str(error.value)


def test_a_recipe_of_one_size_refuses_others(
    world: Path, asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.assets.small.Small.fixed_size", True)
    path = write(world, "size.yaml", EXPERIMENT | uses(asset))
    load_experiment(path)
    with pytest.raises(PhysFedError, match="fits images of 64 pixels alone, and here they have 32"):
        load_experiment(path, ["training.patch=32"])


def test_several_workers_need_ray(world: Path) -> None:
    with pytest.raises(PhysFedError, match="--runtime inline is one process"):
        run_pretrain(load(world, FILE, "training.workers=2"), world / "two", runtime="inline")


@pytest.mark.cluster
def test_ray_trains_to_the_same_bits_and_lends_assets(
    world: Path, asset: Asset, ray_session: None, tmp_path: Path
) -> None:
    """One worker has the bits of one process, the hash of the file included."""
    made = run_pretrain(load(world, FILE), world / "ray")
    assert made.name == asset.name

    def find(lent: files.Lent) -> tuple[str, bytes]:
        import os

        os.environ["PHYSFED_CACHE"] = str(tmp_path / "node")
        files.borrow(lent)
        path = read_asset(asset.name).path
        return str(path), path.read_bytes()

    gone = tmp_path / "driver" / asset.path.name
    gone.parent.mkdir()
    gone.write_bytes(asset.path.read_bytes())
    lent = files.lend([gone])
    gone.unlink()
    gone.parent.rmdir()
    (tmp_path / "driver").touch()  # a node that has no such folder, and cannot make it
    where, content = ray.get(ray.remote(find).remote(lent))
    assert where.startswith(str(tmp_path / "node" / "received"))
    assert content == asset.path.read_bytes()


@pytest.mark.cluster
def test_two_workers_share_every_batch(world: Path, asset: Asset, ray_session: None) -> None:
    """Gradients are averaged over parts of unequal size; only real processes show the sums."""
    two = run_pretrain(load(world, FILE, "training.workers=2", "asset.noise=0.0"), world / "two")
    one = run_pretrain(load(world, FILE, "asset.noise=0.0"), world / "one", runtime="inline")
    for ours, theirs in zip(one.network().parameters(), two.network().parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.cluster
def test_hosts_on_ray_learn_by_an_asset(world: Path, asset: Asset, ray_session: None) -> None:
    """The actors get it in their arguments; whether these arrive, no single process can show."""
    experiment = load_experiment(write(world, "uses.yaml", EXPERIMENT | uses(asset)))
    inline = run_experiment(experiment, world / "by-inline", runtime="inline", page=False)
    on_ray = run_experiment(experiment, world / "by-ray", page=False)
    runs = [RunDirectory(inline), RunDirectory(on_ray)]
    one, other = (
        run.read_table("metrics.parquet").where(split="train", metric="judged").values
        for run in runs
    )
    assert one.tolist() == other.tolist()

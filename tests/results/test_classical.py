"""Classical denoisers: tuned where they may be, scored like a method, on a run's own data."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import gaussian_filter

from physfed_ray.ct.attenuation import mu_to_hu
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.on_demand import read_made
from physfed_ray.data.plan import PreparePlan, plan
from physfed_ray.data.prepared import Prepared, PreparedClient, Statistics
from physfed_ray.data.store import ClientData, read_client_data, write_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.front_ends.fbp import KERNEL_WIDTHS
from physfed_ray.metrics.scoring import score_slices
from physfed_ray.results.classical import (
    CLASSICAL_FILE,
    add_classical,
    classical_scores,
    has_classical,
    nearest,
    tune,
)
from physfed_ray.results.denoisers import DENOISERS, STRENGTHS, Slices
from physfed_ray.rundir.long_table import SLICES_FILE, LongTable
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.run import run_experiment
from physfed_ray.window import normalise

WINDOW = (-1000.0, 2000.0)
SIMULATION = Simulation(40)
OF_IMAGES = ("tv", "nlm")
FBP = DENOISERS["fbp_tuned"]


def _data(noise: float, slices: int = 3, n: int = 40, seed: int = 0) -> ClientData:
    rng = np.random.default_rng(seed)
    full = np.stack([gaussian_filter((rng.random((n, n)) > 0.5) * 1.0, 3) for _ in range(slices)])
    full = np.clip((full - 0.4) * 3 + 0.3, 0, 1).round(1).astype(np.float32)
    low = np.clip(full + rng.normal(0, noise, full.shape), 0, 1).astype(np.float32)
    return ClientData(
        low=low,
        full=full,
        body=np.ones(full.shape, np.uint8),
        embedding=np.zeros((slices, 1, 2), np.float32),
        embedding_mask=np.ones((slices, 1), np.uint8),
        g=np.tile(PRESETS["paper-1"].normalised(), (slices, 1)),
        patient=["p"] * slices,
        slice=np.arange(slices, dtype=np.int32),
        scale=np.ones(slices, np.float32),
        report=[""] * slices,
    )


def _slices(data: ClientData, simulation: Simulation = SIMULATION) -> Slices:
    return Slices(data.low, data.full, PRESETS["paper-1"], simulation, WINDOW)


def _none(name: str, split: str, client: str) -> list[np.ndarray]:
    raise AssertionError(f"nobody reads {name} of {split}/{client}")


def _mean_psnr(images: np.ndarray, data: ClientData | Slices) -> float:
    body = np.ones(data.full.shape, np.uint8)
    return float(score_slices(images, data.full, body, (0.0, 1.0), {})["psnr"].mean())


@pytest.mark.parametrize("name", OF_IMAGES)
def test_tuning_finds_the_best_of_its_grid_and_grows_with_the_noise(name: str) -> None:
    chosen, denoiser = [], DENOISERS[name]
    for noise in (0.01, 0.06):
        data = _data(noise)
        slices = _slices(data)
        strength, psnr = tune(denoiser, slices)
        each = [_mean_psnr(denoiser.apply(slices, s), data) for s in STRENGTHS]
        assert strength == STRENGTHS[int(np.argmax(each))]
        assert psnr == pytest.approx(max(each))
        assert psnr > _mean_psnr(data.low, data)
        chosen.append(strength)
    assert chosen[0] < chosen[1]


def _prepared(root: Path) -> Prepared:
    """Two seen clients with little and much noise, and one unseen protocol near the second."""
    clients = []
    for name, noise in (("paper-1", 0.01), ("paper-7", 0.06), ("unseen-3", 0.03)):
        paths = {split: root / f"{name}-{split}.arrow" for split in ("validation", "test")}
        for seed, path in enumerate(paths.values()):
            write_client_data(path, _data(noise, seed=seed))
        clients.append(
            PreparedClient(name, PRESETS[name], None, paths["validation"], paths["test"], 3, 1)
        )
    statistics = Statistics(0.0, 1.0, [0.0], [1.0], 1, 1)
    unseen = replace(clients[2], validation=None)
    return Prepared(root, 40, WINDOW, tuple(clients[:2]), (unseen,), statistics, {})


def test_an_unseen_protocol_takes_the_strength_of_the_nearest(tmp_path: Path) -> None:
    prepared = _prepared(tmp_path)
    assert nearest(prepared.unseen[0], prepared.clients).id == "paper-7"
    table = classical_scores(prepared, SIMULATION, {"soft": (-160.0, 240.0)}, _none, names=("tv",))
    strengths = table.where(split="strength").means("client")
    assert strengths["unseen-3"] == strengths["paper-7"] > strengths["paper-1"]


def test_the_nearest_is_found_over_detectors_and_arcs(tmp_path: Path) -> None:
    first, second = _prepared(tmp_path).clients
    short = replace(first, id="short", protocol=replace(first.protocol, arc_deg=200))
    unseen = replace(first, protocol=replace(first.protocol, arc_deg=190, photons=9e4))
    assert nearest(unseen, (first, second, short)).id == "short"


def test_scores_are_rows_of_the_slices_table(tmp_path: Path) -> None:
    prepared = _prepared(tmp_path)
    table = classical_scores(prepared, SIMULATION, {"soft": (-160.0, 240.0)}, _none, names=("tv",))
    assert table.distinct("method") == ["Total variation"]
    rows = table.where(client="paper-7", split="test", metric="psnr[-160,240]")
    assert rows.column("slice") == [0, 1, 2]
    data = _data(0.06, seed=1)
    strength = table.where(client="paper-7", split="strength").values[0]
    expected = score_slices(
        DENOISERS["tv"].apply(_slices(data), strength),
        data.full,
        data.body,
        WINDOW,
        {"s": (-160.0, 240.0)},
    )
    np.testing.assert_allclose(rows.values, expected["psnr[-160,240]"])
    assert len(table.where(client="unseen-3", split="unseen/classical", metric="ssim_body")) == 3


SHORT = {"bins": 140, "pixel_mm": 0.7, "bin_mm": 4.0, "source_mm": 250.0, "detector_mm": 250.0}
NOISY, SPARSE = SHORT | {"views": 160, "photons": 2e3}, SHORT | {"views": 24, "photons": 1e9}
CLEAN = SHORT | {"views": 160, "photons": 1e9}


def _experiment(cache: Path, **data: object) -> Experiment:
    """Two phantoms a client; the unseen protocol is near the noisy one, its pixels are not."""
    settings = {
        "source": {"phantom": {"patients": "auto", "slices": 2}},
        "image_size": 48,
        "test_patients": 1,
        "validation_patients": 2,
        "cache": str(cache),
    }
    return Experiment.model_validate(
        {
            "name": "tuned",
            "data": settings | data,
            "clients": [
                {"id": "noisy", "protocol": NOISY},
                {"id": "sparse", "protocol": SPARSE},
                {"id": "clean", "protocol": CLEAN},
            ],
            "unseen": [{"id": "near", "protocol": NOISY | {"pixel_mm": 0.9, "views": 150}}],
            "method": {"name": "fedavg"},
            "backbone": {"channels": 2},
            "training": {"rounds": 1, "evaluate_every": 1},
        }
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one round, scored by every classical denoiser."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("physfed_ray.runtime.run.write_page", lambda directory: None)
        run_experiment(_experiment(folder / "cache"), folder / "run", runtime="inline")
    add_classical(folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def todo(run_dir: Path) -> PreparePlan:
    return plan(_experiment(run_dir.parent / "cache"))


def _tuning_slices(todo: PreparePlan, client: str) -> Slices:
    path = todo.file("validation", client)
    assert path is not None
    data = read_client_data(path)
    measured = {"sinogram": read_made(todo, "sinogram", "validation", client)}
    simulation = todo.settings.simulation
    return Slices(data.low, data.full, todo.clients[client], simulation, WINDOW, measured)


@pytest.mark.parametrize("client", ["noisy", "sparse", "clean"])
def test_a_tuned_kernel_is_never_worse_than_the_scan_s_own(todo: PreparePlan, client: str) -> None:
    slices = _tuning_slices(todo, client)
    grid = FBP.strengths(slices)
    assert len(grid) == len(KERNEL_WIDTHS) + 1
    own = min(grid, key=lambda width: abs(width - 0.85))
    np.testing.assert_allclose(
        FBP.apply(slices, own), slices.low, atol=1e-3
    )  # 3 HU: half precision
    before, (width, after) = _mean_psnr(slices.low, slices), tune(FBP, slices)
    assert after >= before - 1e-3
    assert (after > before + 1) == (client != "clean")
    others = [_mean_psnr(FBP.apply(slices, other), slices) for other in grid]
    assert width == grid[int(np.argmax(others))]


def test_noise_asks_for_a_wider_kernel_and_the_nearest_protocol_gets_it(run_dir: Path) -> None:
    table = LongTable.from_parquet((run_dir / CLASSICAL_FILE).read_bytes())
    widths = table.where(split="strength", method=FBP.title).means("client")
    assert widths["noisy"] > widths["clean"]
    assert widths["near"] == widths["noisy"]


def test_an_unseen_protocol_takes_the_width_in_pixels_of_its_own_image(
    run_dir: Path, todo: PreparePlan
) -> None:
    table = LongTable.from_parquet((run_dir / CLASSICAL_FILE).read_bytes())
    rows = table.where(client="near", method=FBP.title)
    path, protocol = todo.file("unseen", "near"), todo.unseen["near"]
    assert path is not None
    data, measured = read_client_data(path), read_made(todo, "sinogram", "unseen", "near")
    mu = fbp(
        torch.from_numpy(np.stack(measured)).float(),
        protocol,
        48,
        rows.where(split="strength").values[0] * protocol.pixel_at(48),
    )
    images = normalise(mu_to_hu(mu.numpy()), WINDOW)
    found = rows.where(split="unseen/classical", metric="psnr").values
    assert found.mean() == pytest.approx(_mean_psnr(images, data), abs=1e-3)
    assert found.mean() > _mean_psnr(data.low, data) + 1


def test_the_scan_s_own_kernel_is_in_the_grid_whatever_it_is(todo: PreparePlan) -> None:
    slices = _tuning_slices(todo, "clean")
    for simulation, own in (
        (Simulation(48, kernel_pixels=0.5), 0.5),
        (Simulation(48, kernel_pixels=1.4), 1.4),
        (Simulation(512), 1.7),
    ):
        grid = FBP.strengths(replace(slices, simulation=simulation))
        assert min(abs(width - own) for width in grid) < 1e-12


def test_a_run_s_file_holds_every_denoiser_and_sinograms_are_made_where_they_are_read(
    run_dir: Path, todo: PreparePlan
) -> None:
    directory = RunDirectory(run_dir)
    assert has_classical(directory)
    table = LongTable.from_parquet((run_dir / CLASSICAL_FILE).read_bytes())
    assert table.distinct("method") == ["FBP, tuned kernel", "Total variation", "Non-local means"]
    made = {
        split
        for split, client in todo.files
        for shard in todo.shards_of(split, client)
        if todo.field_path_of(shard, "sinogram").is_file()
    }
    assert made == {"validation", "test", "unseen"}


def _copy(run_dir: Path, to: Path) -> RunDirectory:
    shutil.copytree(run_dir, to)
    return RunDirectory(to)


def test_a_run_that_lacks_a_denoiser_is_scored_again(run_dir: Path, tmp_path: Path) -> None:
    directory = _copy(run_dir, tmp_path / "run")
    table = LongTable.from_parquet(directory.read(CLASSICAL_FILE))
    directory.write(CLASSICAL_FILE, table.where(method="Total variation").to_parquet())
    assert not has_classical(directory)
    add_classical(directory.root)
    assert directory.read(CLASSICAL_FILE) == (run_dir / CLASSICAL_FILE).read_bytes()
    (tmp_path / "run" / CLASSICAL_FILE).unlink()
    assert not has_classical(directory)


def test_a_run_of_the_former_scanner_is_refused(run_dir: Path, tmp_path: Path) -> None:
    directory = _copy(run_dir, tmp_path / "run")
    values = yaml.safe_load(directory.read("experiment.yaml"))
    del values["data"]["object_scale"]
    directory.write("experiment.yaml", yaml.safe_dump(values).encode())
    with pytest.raises(PhysFedError, match=r"run was made by .*scanned otherwise .*object_scale"):
        add_classical(directory.root)


@pytest.mark.parametrize("split", ["test", "unseen"])
def test_a_run_on_other_data_is_refused(run_dir: Path, tmp_path: Path, split: str) -> None:
    directory = _copy(run_dir, tmp_path / "run")
    slices = LongTable.from_parquet(directory.read(SLICES_FILE))
    of_input = [row for row in slices.rows() if row[1] == f"{split}/input"]
    client = of_input[0][0]
    for shift, refused in ((0.05, False), (0.3, True)):
        changed = LongTable(slices.names, slices.rows())
        changed.replace([(*row[:-1], row[-1] + shift) for row in of_input if row[4] == "psnr"])
        directory.write(SLICES_FILE, changed.to_parquet())
        if not refused:
            add_classical(directory.root)
            continue
        with pytest.raises(PhysFedError, match=rf"the input of {client} has a PSNR of \d.* over 2"):
            add_classical(directory.root)
    fewer = [row for row in slices.rows() if row[1] != f"{split}/input"]
    directory.write(SLICES_FILE, LongTable(slices.names, fewer).to_parquet())
    with pytest.raises(PhysFedError, match="nothing over 0 slices in the run"):
        add_classical(directory.root)

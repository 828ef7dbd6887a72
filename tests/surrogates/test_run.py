"""The whole study, as small as it gets: what is measured, resumed, refused and shown."""

from pathlib import Path

import numpy as np
import pytest
import torch

from physfed_ray.cli import main
from physfed_ray.errors import PhysFedError
from physfed_ray.surrogates.file import SurrogateFile, load_surrogate
from physfed_ray.surrogates.page import write_page
from physfed_ray.surrogates.rows import ATTACK, ROWS, Cell, Rows
from physfed_ray.surrogates.run import Maker, cells, run_study
from physfed_ray.surrogates.world import World, make_hosts, make_world
from tests.surrogates.small import SMALL

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[SurrogateFile, World, Path]:
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(SMALL)
    file = load_surrogate(folder / "small.yaml")
    run_study(file, folder / "out")
    return file, make_world(file, 1, make_hosts(file)), folder


def test_a_study_measures_every_cell_and_shows_it(
    study: tuple[SurrogateFile, World, Path],
) -> None:
    file, _, folder = study
    rows = Rows.read(folder / "out")
    assert set(rows.values) == set(cells(file))
    attack = rows.values[Cell(1, ATTACK, 0.5)]
    assert {
        "reid",
        "reid_chance",
        "unet_correlation",
        "ridge_psnr",
        "ridge_hosts_ssim",
        "mean_ssim",
    } <= set(attack)
    assert all(np.isfinite(v) for found in rows.values.values() for v in found.values())
    page = write_page(file, rows, "physfed surrogate small.yaml").read_text()
    assert "It is not a denoiser" in page
    assert page.count("data:image/png") >= 2
    assert "0 (host)" in (folder / "out" / "tables" / "surrogate.csv").read_text()


def test_what_is_measured_is_not_measured_again(
    study: tuple[SurrogateFile, World, Path],
) -> None:
    file, _, folder = study
    out = folder / "out"
    before = Rows.read(out)
    lost = Cell(1, "lesion", 0.5)
    kept = {cell: found for cell, found in before.values.items() if cell != lost}
    part = Rows(out, dict(kept))
    marked = Cell(1, ATTACK, 0.0)
    part.add(marked, {"reid": 0.125})  # would be overwritten if it were measured again
    events: list[tuple[Cell | None, int]] = []
    after = run_study(file, out, lambda event: events.append((event["cell"], event["done"])))
    assert events == [(None, 4), (lost, 5)]
    assert after.values[lost] == before.values[lost]
    assert Rows.read(out).values[marked] == {"reid": 0.125}
    with pytest.raises(PhysFedError, match="another 'alpha'"):
        run_study(file.model_copy(update={"alpha": 0.5}), out)
    (out / ROWS).write_bytes(b"PAR1")
    with pytest.raises(PhysFedError, match="cannot be read"):
        run_study(file, out)


def test_hosts_and_patients_of_training_and_test_are_apart(
    study: tuple[SurrogateFile, World, Path],
) -> None:
    _, world, _ = study
    whose = np.array(world.slices.patients)
    groups = [set(whose[list(group)]) for group in (*world.clients, world.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10
    shown = [set(world.shown[list(part)].tolist()) for part in (world.train, world.test)]
    assert not shown[0] & shown[1]
    assert shown[0] <= set(world.train_hosts)


def test_at_beta_0_the_surrogates_are_the_hosts(
    study: tuple[SurrogateFile, World, Path],
) -> None:
    file, world, _ = study
    found = Maker(file, world, 0.0).surrogates(world.images)
    torch.testing.assert_close(found, world.hosts[world.shown], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("betas=[0]", "betas.0: must be greater than 0, not 0"),
        ("alpha=1.5", "alpha: must be less than or equal to 1"),
        ("tasks=[tumour]", "tasks.0: must be 'region' or 'lesion'"),
        ("seeds=[1, 1]", "names something twice"),
        ("seeds=[99]", "hosts.seed: 99 is among the seeds"),
        ("data.noise=fresh", "data.noise: it decides nothing here"),
        ("data.image_size=40", "must be a multiple of 16"),
        ("data.source={pairs: ct}", "give 'phantom' or 'dicom'"),
        ("data.source.phantom.patients=auto", "give their number"),
        ("lesion.contrast_hu=0", "must be 1 to 3000 HU above or below"),
        ("quality.width=6", "quality.width: must be a multiple of 4"),
        ("data.test_patients=9", "patients"),
        ("betass=1", "unknown key; did you mean 'betas'"),
    ],
)
def test_a_mistake_is_one_sentence(
    path: Path, override: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["surrogate", str(path), "--out", str(path.parent / "out"), "--set", override]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1


def test_an_experiment_is_no_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surrogate", str(EXPERIMENTS / "quickstart.yaml")]) == 2
    assert "is no surrogate study" in capsys.readouterr().err


def test_a_study_is_no_experiment(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(path)]) == 2
    assert "`physfed surrogate` takes" in capsys.readouterr().err


def test_the_file_of_the_project_is_read() -> None:
    assert load_surrogate(EXPERIMENTS / "surrogate.yaml").betas[-1] == 1.0

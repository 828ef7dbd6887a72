"""``physfed denoise`` as a user meets it."""

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest

from physfed_ray.cli import main
from physfed_ray.data.dicom.frames import read_image
from tests.data.conftest import WriteCT
from tests.data.conftest import write_ct as write_ct
from tests.serving.conftest import train_in


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    trained = train_in(tmp_path_factory.mktemp("run"), "scan_physfed", settings={"anatomy": False})
    (trained.root / "experiment.yaml").write_text("name: tiny\n")
    return str(trained.root)


def test_a_series_becomes_files_a_record_and_a_page(
    tmp_path: Path, write_ct: WriteCT, root: str, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for z in range(3):
        hu = np.clip(rng.normal(40, 50, (48, 48)), -900, 900).round()
        write_ct(tmp_path / f"in/{z}", hu, z_mm=z)
    (tmp_path / "scanner.yaml").write_text(
        "{views: 864, bins: 560, pixel_mm: 0.7, bin_mm: 0.8, source_mm: 280, detector_mm: 280, "
        "photons: 1.1e5}"
    )
    command = ["denoise", root, "in", "out", "--protocol", "scanner.yaml", "--threads", "1"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("model: PVQS: the decoder of client c-paper-")
    assert "found 1 series, 3 slices, in 3 files" in lines
    assert any(line.startswith("denoised 3 slices in") for line in lines)
    (series,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    paths = sorted(series.iterdir())
    assert [path.name for path in paths] == ["00001.dcm", "00002.dcm", "00003.dcm"]
    assert pydicom.dcmread(paths[0]).ImageType[0] == "DERIVED"
    before, after = (read_image(path, None)[0] for path in (tmp_path / "in/0", paths[0]))
    assert np.abs(before - after).mean() > 0.1
    page = (tmp_path / "out/viewer.html").read_text()
    assert series.name in page
    assert len(page) < 3_000_000
    first = paths[0].read_bytes()
    assert main(command) == 0
    assert "3 were there already" in capsys.readouterr().out
    assert paths[0].read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "in", "out", "--client", "c1"], "is not a run directory"),
        (["RUN", "in", "out", "--client", "c-paper-1", "--policy", "pvqs"], "goes with --protocol"),
        (["RUN", "in", "out", "--client", "c-paper-1", "--actors", "2"], "go with --address"),
        (["RUN", "in", "out", "--client", "c-paper-1", "--address", "local", "--gpus-per-actor",
          "1.5"], "give a part of a GPU"),
        (["RUN", "there", "out", "--client", "c-paper-1"], "there does not exist"),
        (["RUN", "in", "in/out", "--client", "c-paper-1"], "lies in the folder that is read"),
        (["RUN", "in", "out", "--client", "c9"], "no client 'c9'"),
        (["RUN", "in", "out", "--protocol", "none.yaml"], "there is no file none.yaml"),
        (["RUN", "in", "out", "--protocol", "paper-99"], "no protocol is named 'paper-99'"),
        (["RUN", "in", "out", "--protocol", "paper-3", "--policy", "shared"], "is not possible"),
        (["RUN", "in", "out", "--client", "c-paper-1"], "no axial CT slice in .* can be denoised"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_write_nothing(
    arguments: list[str], said: str, tmp_path: Path, root: str, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("no image")
    assert main(["denoise", *(root if part == "RUN" else part for part in arguments)]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()

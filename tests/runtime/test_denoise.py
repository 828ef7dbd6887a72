"""Denoising on Ray gives the files of one process, byte for byte, and its mistakes as sentences."""

from pathlib import Path

import numpy as np
import pytest

from physfed_ray.data.dicom.whole_series import find_series
from physfed_ray.errors import PhysFedError
from physfed_ray.runtime.denoise import DenoisePool
from physfed_ray.serving.denoise import denoise_folder
from physfed_ray.serving.parts import Part, cut
from physfed_ray.serving.wanted import Wanted
from tests.data.conftest import WriteCT
from tests.data.conftest import write_ct as write_ct
from tests.serving.conftest import train_in


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*.dcm"))}  # fmt: skip


# No quicker test shows that actors of Ray Data read, compute and write as one process does.
@pytest.mark.cluster
def test_a_pool_writes_the_bytes_of_one_process(
    tmp_path: Path, write_ct: WriteCT, ray_session: None
) -> None:
    root = str(train_in(tmp_path / "trained", "fedper").root)
    rng = np.random.default_rng(0)
    for series in range(2):
        for z in range(5):
            hu = np.clip(rng.normal(40, 50, (48, 40)), -900, 900).round()
            write_ct(tmp_path / f"in/{series}/{z}", hu, series=str(series), z_mm=z)
    (tmp_path / "in/odd").write_text("no image")
    wanted = Wanted(root, "c-paper-1", None, None, "own", 2, 1, "cpu")
    here = denoise_folder(wanted, tmp_path / "in", tmp_path / "here")
    pool = DenoisePool.on("local", 2, None)
    assert (pool.gpus, pool.device) == (0, "cpu")
    there = denoise_folder(wanted, tmp_path / "in", tmp_path / "there", run_parts=pool)
    assert content(tmp_path / "there") == content(tmp_path / "here")
    assert len(content(tmp_path / "here")) == 10
    assert (there.made, there.left_out) == (here.made, here.left_out) == (10, {"not DICOM": 1})
    (gone, *_) = (tmp_path / "there").rglob("00003.dcm")
    gone.unlink()
    again = denoise_folder(wanted, tmp_path / "in", tmp_path / "there", run_parts=pool)
    assert (again.made, again.there) == (1, 9)
    assert content(tmp_path / "there") == content(tmp_path / "here")
    parts = _parts(tmp_path / "in")
    with pytest.raises(PhysFedError, match="is no longer the one that this began with"):
        list(pool(wanted, "another hash", tmp_path / "there", parts))
    with pytest.raises(PhysFedError, match="no machine of the Ray cluster has more than 0 GPUs"):
        DenoisePool.on("local", 1, 0.5)


def _parts(folder: Path) -> list[Part]:
    return [part for series in find_series(folder).series for part in cut(series, 2)]

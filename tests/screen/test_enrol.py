"""The table of an enrolled client: means, spreads and gains worked out by hand."""

import io

from rich.console import Console

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.screen.enrol import gain, print_enrolled, spread
from physfed_ray.serving.enrol.card import Base, EnrolledCard, Result


def result(split: str, *psnr: float, **more: int) -> Result:
    patients = {f"p{i}": value for i, value in enumerate(psnr)}
    ssim = dict.fromkeys(patients, 0.9)
    scores = {"psnr": patients, "ssim": ssim, "psnr_body": patients, "ssim_body": ssim}
    return Result(split=split, says=f"says {split}", scores=scores, **more)


def test_the_gain_is_taken_patient_by_patient() -> None:
    unseen = result("unseen/shared", 40.0, 44.0)
    said = gain(result("enrolled/1", 41.0, 43.0), unseen)
    assert said == "+0.00 dB (-1.00 to +1.00), 1 of 2 test patients gain"
    assert gain(result("enrolled/1", 42.0), result("unseen/shared", 40.0)) == "+2.00 dB"
    assert spread({"a": 40.0, "b": 44.0}) == "42.00 ±2.83"
    assert spread({"a": 0.9}, 100.0) == "90.00"


def test_all_that_was_compared_is_printed() -> None:
    card = EnrolledCard(
        id="north",
        protocol=PRESETS["unseen-1"],
        trained=("decoder",),
        start="shared",
        base=Base(round=3, shared="", run_hash=""),
        weights="",
        patients={"train": {"a": 2, "b": 1}, "validation": {"c": 1}, "test": {"p0": 1, "p1": 1}},
        source={},
        known="",
        settings={},
        results=(
            result("input", 38.0, 39.0),
            result("unseen/shared", 40.0, 44.0),
            result("enrolled/2", 42.5, 44.5, patients=2, round=7, rounds=9),
        ),
    )
    console = Console(file=io.StringIO(), width=80)
    print_enrolled(card, "runs/a/enrolled/north", console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "patients: 2 train, 1 validation, 2 test" in text
    assert "trained: decoder, from a copy of the shared one" in text
    assert "unseen/shared: says unseen/shared" in text
    row = next(line for line in text.splitlines() if line.startswith("enrolled"))
    assert row.split()[:5] == ["enrolled", "2", "7/9", "43.50", "±1.41"]
    assert "…" not in text
    gained = "gain says 2: +1.50 dB (+0.50 to +2.50), 2 of 2 test patients gain"
    assert gained in text.replace("says enrolled/2", "says 2")
    assert "files: runs/a/enrolled/north" in text

"""Scores and counts for a card, from what a run directory holds."""

from pathlib import Path

import numpy as np

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.rundir.long_table import LongTable
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.choice import Choice
from physfed_ray.serving.enrol.card import Base, EnrolledCard, Result
from physfed_ray.serving.export.record import Record, enrolled_record, read_record

WINDOW = (-1000.0, 2000.0)
OWN = Choice("own", "c1", np.zeros(7, np.float32))
SERVED = Choice("pvqs", "c1", np.zeros(7, np.float32), 0.9)
ROWS = [
    (1, "c1", "validation", "psnr", 30.0), (2, "c1", "validation", "psnr", 31.0),
    (2, "c1", "validation/input", "psnr", 25.0), (2, "c1", "test", "psnr", 32.0),
    (2, "c1", "test", "ssim[-160,240]", 0.5), (2, "c1", "test/input", "psnr", 26.0),
    (2, "c2", "test", "psnr", 99.0), (2, "u1", "unseen/pvqs", "psnr", 33.0),
    (2, "u1", "unseen/oracle", "psnr", 98.0), (2, "u1", "unseen/input", "psnr", 27.0),
    (2, "c3", "validation", "theirs", 5.0),
]  # fmt: skip
DATA = {
    "source": {"kind": "phantom"},
    "splits": {
        "train": {"c1": {"patients": 2, "slices": 9}, "c2": {"patients": 3, "slices": 10}},
        "test": {"c1": {"patients": 1, "slices": 4}},
    },
}


def directory(path: Path) -> RunDirectory:
    """Return a run directory with the tables above."""
    made = RunDirectory(path)
    made.write_table("metrics.parquet", LongTable(rows=ROWS))
    made.write_json("summary.json", {"data": DATA})
    return made


def test_a_clients_own_model_has_the_scores_of_its_last_test(tmp_path: Path) -> None:
    record = read_record(directory(tmp_path), 2, "c1", OWN, WINDOW)
    first, second = record.scores
    assert (record.split, record.source) == ("test", "phantom")
    assert (first.name, first.unit, first.before, first.after) == (
        "psnr[-1000,2000]", "dB", 26.0, 32.0,
    )  # fmt: skip
    assert (second.name, second.unit, second.before, second.after) == (
        "ssim[-160,240]", "%", None, 50.0,
    )  # fmt: skip
    assert record.counts == {
        "train": {"patients": 2, "slices": 9},
        "train, all clients": {"patients": 5, "slices": 19},
        "test": {"patients": 1, "slices": 4},
    }


def test_without_test_patients_validation_stands_in_and_so_do_metrics_that_are_gone(
    tmp_path: Path,
) -> None:
    record = read_record(directory(tmp_path), 2, "c3", OWN, WINDOW)
    assert (record.split, record.scores[0].name) == ("validation", "theirs[-1000,2000]")
    earlier = read_record(directory(tmp_path), 1, "c1", OWN, WINDOW)
    assert (earlier.split, earlier.scores[0].after) == ("validation", 30.0)


def test_a_served_protocol_has_the_scores_of_its_policy(tmp_path: Path) -> None:
    record = read_record(directory(tmp_path), 2, "u1", SERVED, WINDOW)
    assert (record.split, record.scores[0].before, record.scores[0].after) == (
        "unseen/pvqs", 27.0, 33.0,
    )  # fmt: skip
    assert list(record.counts) == ["train, all clients"]
    assert read_record(directory(tmp_path), 2, "", SERVED, WINDOW).scores == ()


def test_a_run_without_results_says_nothing(tmp_path: Path) -> None:
    assert read_record(RunDirectory(tmp_path), 2, "c1", OWN, WINDOW) == Record()


def test_an_enrolled_clients_scores_and_counts_are_its_own() -> None:
    scores = {"psnr": {"p3": 30.0, "p4": 34.0}}
    client = EnrolledCard(
        id="north", protocol=PRESETS["unseen-2"], trained=("decoder",), start="initial",
        base=Base(round=2, shared="a", run_hash="b"), weights="c", known="", settings={},
        patients={"train": {"p1": 5, "p2": 6}, "test": {"p3": 1, "p4": 3}},
        source={"kind": "dicom"},
        results=(
            Result(split="input", says="", scores={"psnr": {"p3": 20.0, "p4": 24.0}}),
            Result(split="enrolled/1", says="", scores={"psnr": {"p3": 1.0, "p4": 1.0}}),
            Result(split="enrolled/2", says="", scores=scores),
        ),
    )  # fmt: skip
    run = Record(counts={"train, all clients": {"patients": 5, "slices": 19}}, source="phantom")
    record = enrolled_record(client, run, WINDOW)
    (psnr,) = record.scores
    assert (psnr.before, psnr.after) == (23.0, 33.0)  # by slices: 1 of p3, 3 of p4
    assert (record.split, record.source) == ("test", "dicom")
    assert record.counts == {
        "train": {"patients": 2, "slices": 11},
        "test": {"patients": 2, "slices": 4},
        "train, all clients of the run": {"patients": 5, "slices": 19},
    }
    assert "it trained decoder alone, on its own patients, from initial weights" in record.joined

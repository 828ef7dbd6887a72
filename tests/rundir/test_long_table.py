"""The metrics in columns do what a list of tuples would do."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from physfed_ray.rundir.long_table import METRIC_COLUMNS, METRICS_FILE, LongTable, MetricRow
from physfed_ray.rundir.run_directory import RunDirectory

SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("client", pa.string()),
        ("split", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)


def drawn_rows(seed: int, rounds: int = 5, count: int = 40) -> list[MetricRow]:
    rng = np.random.default_rng(seed)
    return [
        (
            number,
            f"c{rng.integers(4)}",
            str(rng.choice(["train", "test/input", "system"])),
            str(rng.choice(["loss", "psnr[-160,240]"])),
            float(rng.normal()),
        )
        for number in range(1, rounds + 1)
        for _ in range(count)
    ]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def filled(rows: list[MetricRow], step: int = 7) -> LongTable:
    metrics = LongTable()
    for start in range(0, len(rows), step):
        metrics.add(rows[start : start + step])
    return metrics


def test_rows_come_back_in_order(directory: RunDirectory) -> None:
    rows = drawn_rows(1)
    metrics = filled(rows)
    assert len(metrics) == len(rows)
    assert metrics.rows() == rows
    directory.write_table(METRICS_FILE, metrics)
    again = directory.read_table(METRICS_FILE)
    assert again.rows() == rows
    more = drawn_rows(2)
    again.add(more)  # names keep their meaning after reading
    assert again.rows() == rows + more


def test_an_empty_table_is_one(directory: RunDirectory) -> None:
    assert directory.read_table(METRICS_FILE).rows() == []
    metrics = LongTable()
    metrics.add([])
    metrics.replace([])
    directory.write_table(METRICS_FILE, metrics)
    assert directory.read_table(METRICS_FILE).rows() == []
    assert directory.read_table(METRICS_FILE).names == METRIC_COLUMNS


def test_the_file_is_a_plain_table(directory: RunDirectory, tmp_path: Path) -> None:
    rows = drawn_rows(3)
    directory.write_table(METRICS_FILE, filled(rows))
    assert pq.read_table(tmp_path / "metrics.parquet").schema.equals(SCHEMA)
    assert directory.read_table(METRICS_FILE).rows() == rows


@pytest.mark.parametrize("row_group_size", [None, 7])
def test_a_file_of_another_writer_is_read(tmp_path: Path, row_group_size: int | None) -> None:
    rows = drawn_rows(4)
    columns = zip(*rows, strict=True)
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)
    pq.write_table(table, tmp_path / "metrics.parquet", row_group_size=row_group_size)
    assert RunDirectory(tmp_path).read_table(METRICS_FILE).rows() == rows


def test_conditions_choose_rows() -> None:
    rows = drawn_rows(5)
    metrics = filled(rows)
    assert metrics.rows(split="system", round=5) == [
        r for r in rows if r[2] == "system" and r[0] == 5
    ]
    assert metrics.rows(metric="loss") == [r for r in rows if r[3] == "loss"]
    assert metrics.rows(split="never seen") == []
    expected = [r[4] for r in rows if r[2:4] == ("train", "loss")]
    assert metrics.where(split="train", metric="loss").values.tolist() == expected
    assert metrics.where(split="train", metric="loss", round=3).values.tolist() == [
        r[4] for r in rows if r[0] == 3 and r[2:4] == ("train", "loss")
    ]


def test_truncating_drops_later_rounds_and_leaves_room_for_new_ones() -> None:
    rows = drawn_rows(6)
    metrics = filled(rows)
    metrics.truncate(3)
    kept = [r for r in rows if r[0] <= 3]
    assert metrics.rows() == kept
    metrics.add(rows[-10:])
    assert metrics.rows() == kept + rows[-10:]


def test_the_last_value_replaces_the_earlier_ones() -> None:
    rows, final = drawn_rows(7), drawn_rows(8, rounds=6)
    metrics = filled(rows)
    metrics.replace(final)
    assert metrics.rows() == list({row[:4]: row for row in [*rows, *final]}.values())


def test_nan_is_a_value(directory: RunDirectory) -> None:
    metrics = LongTable()
    metrics.add([(1, "c", "train", "loss", math.nan), (2, "c", "train", "loss", 1.0)])
    metrics.replace([(2, "c", "train", "loss", math.nan)])
    directory.write_table(METRICS_FILE, metrics)
    assert np.isnan(directory.read_table(METRICS_FILE).values).tolist() == [True, True]

"""What pages say of more clients than a table can show: statistics, and the best and worst."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from physfed_ray.results.grids import Grid
from physfed_ray.results.runs import ClientEntry
from physfed_ray.results.tables import CLIENTS_SHOWN, Column, ScoreTable, TableRow, nan_mean

EXTREMES = 5
STATISTICS = (
    Column("mean", "mean"),
    Column("sd", "SD", compared=False),
    Column("min", "min", compared=False),
    Column("quartile_1", "25%", compared=False),
    Column("median", "median", compared=False),
    Column("quartile_3", "75%", compared=False),
    Column("max", "max", compared=False),
    Column("better_percent", "better (%)", decimals=0),
)


def shown(table: ScoreTable) -> ScoreTable:
    """Return the table, or its summary when it has more clients than a page shows."""
    return table if len(table.clients) <= CLIENTS_SHOWN else summary(table)


def summary(table: ScoreTable) -> ScoreTable:
    """Return statistics over the clients: one group of columns a metric.

    Args:
        table: Methods by clients, the input first.
    """
    caption = (
        f"{table.caption} Mean, standard deviation, minimum, quartiles and maximum over "
        f"{len(table.clients)} clients or protocols, each the mean of its slices; better: the "
        "share of them that is above its own input."
    )
    rows = tuple(replace(row, values=_statistics(table, row), quoted=None) for row in table.rows)
    metrics = tuple(column.heading for column in table.columns)
    return ScoreTable(caption, metrics, STATISTICS, rows, average=False)


def _statistics(table: ScoreTable, row: TableRow) -> NDArray[np.float64]:
    """Return (seeds, metrics, statistics) in printed units."""
    values = row.values * np.array([column.scale for column in table.columns])
    difference = _differences(table, row)
    better = np.where(np.isnan(difference), np.nan, 100.0 * (difference > 0))
    if row is table.rows[0]:
        better[:] = np.nan  # the input is not compared with itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a method may lack a whole metric
        spread = np.nanstd(values, axis=1, ddof=1)
        quantiles = np.nanquantile(values, (0, 0.25, 0.5, 0.75, 1), axis=1)
    return np.stack([nan_mean(values, 1), spread, *quantiles, nan_mean(better, 1)], axis=-1)


def _differences(table: ScoreTable, row: TableRow) -> NDArray[np.float64]:
    """Return a row minus the input of the same seeds: (seeds, clients, metrics)."""
    before = table.rows[0]
    return row.values - before.values[[before.seeds.index(seed) for seed in row.seeds]]


def leader(table: ScoreTable) -> TableRow:
    """Return the competing row, the input left out, with the highest mean of the first metric."""
    rows = [row for row in table.rows[1:] if row.ranked]
    return max(rows, key=lambda row: np.nan_to_num(_mean(row.values[..., 0]), nan=-math.inf))


def _mean(values: NDArray[np.float64]) -> float:
    return float(nan_mean(values.ravel(), 0))


def gains(table: ScoreTable, row: TableRow) -> NDArray[np.float64]:
    """Return each client's first metric minus that of its input, mean over seeds: (clients,)."""
    return nan_mean(_differences(table, row), 0)[:, 0]


def extremes(table: ScoreTable, entries: Sequence[ClientEntry]) -> Grid | None:
    """Return the clients that gain most and least over their input, the largest gain first.

    Args:
        table: PSNR in dB as its first metric; the row of ``leader`` is looked at.
        entries: The table's clients in its order.

    Returns:
        None where no client has a gain.
    """
    row = leader(table)
    before, after = (nan_mean(r.values, 0)[:, 0] for r in (table.rows[0], row))
    gain = gains(table, row)
    order = [int(k) for k in np.argsort(-gain) if math.isfinite(gain[k])]
    if not order:
        return None
    rows = [
        (
            entries[k].label,
            f"{entries[k].protocol['views']:g}",
            f"{entries[k].protocol['pixel_mm']:g}",
            f"{entries[k].protocol['photons']:,.0f}",
            f"{before[k]:.2f}",
            f"{after[k]:.2f}",
            f"{gain[k]:+.2f}",
        )
        for k in dict.fromkeys(order[:EXTREMES] + order[-EXTREMES:])
    ]
    head = ("", "views", "pixel (mm)", "photons", "input (dB)", "PSNR (dB)", "gain (dB)")
    return Grid(head, rows)

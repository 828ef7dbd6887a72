"""The metrics of a run, kept in columns so that a thousand clients cost little at every round."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from physfed_ray.federation.run_directory import RunDirectory

Row = tuple[int, str, str, str, float]  # round, client, split, metric, value
METRICS_FILE = "metrics.parquet"
NAMES = ("client", "split", "metric")
TYPES = {"round": np.int32, "client": np.int32, "split": np.int32, "metric": np.int32}
Columns = dict[str, NDArray[Any]]


class Metrics:
    """A long table of one value a row, in the order in which the rows were added.

    Every name is held once and stands in its column as a number (a dictionary encoding): old rows
    are entries of five arrays, not Python objects.
    """

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, int]] = {name: {} for name in NAMES}
        self._columns: Columns = {name: np.empty(0, kind) for name, kind in TYPES.items()}
        self._columns["value"] = np.empty(0)
        self._length = 0  # rows in use; the arrays have room for more

    @classmethod
    def read(cls, directory: RunDirectory) -> "Metrics":
        """Read the table of a run directory; an empty one when there is none."""
        metrics = cls()
        if not directory.exists(METRICS_FILE):
            return metrics
        content = io.BytesIO(directory.read(METRICS_FILE))
        table = pq.read_table(content, read_dictionary=list(NAMES))
        columns = {name: table[name].to_numpy() for name in ("round", "value")}
        for name in NAMES:
            encoded = table[name].combine_chunks()
            metrics._codes[name] = {
                word: i for i, word in enumerate(encoded.dictionary.to_pylist())
            }
            columns[name] = encoded.indices.to_numpy()
        metrics._append(columns, len(table))
        return metrics

    def write(self, directory: RunDirectory) -> None:
        """Write the table as ``metrics.parquet`` (plain strings to whoever reads it)."""
        columns = self._view()
        arrays: dict[str, pa.Array] = {"round": pa.array(columns["round"])}
        for name in NAMES:
            words = pa.array(list(self._codes[name]), pa.string())
            arrays[name] = pa.DictionaryArray.from_arrays(columns[name], words)
        arrays["value"] = pa.array(columns["value"])
        sink = io.BytesIO()
        pq.write_table(pa.table(arrays), sink, use_dictionary=["round", *NAMES], store_schema=False)
        directory.write(METRICS_FILE, sink.getvalue())

    def __len__(self) -> int:
        return self._length

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        if not rows:
            return
        numbers, clients, splits, metrics, values = zip(*rows, strict=True)
        columns: Columns = {"round": np.array(numbers, np.int32), "value": np.array(values, float)}
        for name, words in zip(NAMES, (clients, splits, metrics), strict=True):
            codes = self._codes[name]
            columns[name] = np.array([codes.setdefault(word, len(codes)) for word in words])
        self._append(columns, len(rows))

    def replace(self, rows: Sequence[Row]) -> None:
        """Add rows; where several have the same round, client, split and metric, the last stays.

        It stands where the first of them stood.
        """
        self.add(rows)
        columns = self._view()
        key = columns["round"].astype(np.int64)
        for name in NAMES:
            key = key * max(1, len(self._codes[name])) + columns[name]
        _, first = np.unique(key, return_index=True)
        _, last = np.unique(key[::-1], return_index=True)
        columns["value"][first] = columns["value"][len(key) - 1 - last].copy()
        self._keep(np.sort(first))

    def truncate(self, number: int) -> None:
        """Drop the rows of rounds after ``number``."""
        self._keep(np.flatnonzero(self._view()["round"] <= number))

    def rows(
        self, *, number: int | None = None, split: str | None = None, metric: str | None = None
    ) -> list[Row]:
        """Return the rows of a round, a split, a metric; all rows without a condition."""
        columns, chosen = self._view(), self._where(number, split, metric)
        words = {name: list(self._codes[name]) for name in NAMES}
        parts = [[words[name][code] for code in columns[name][chosen].tolist()] for name in NAMES]
        rounds, values = columns["round"][chosen].tolist(), columns["value"][chosen].tolist()
        return list(zip(rounds, *parts, values, strict=True))

    def values(self, split: str, metric: str, *, number: int | None = None) -> NDArray[np.float64]:
        """Return the values of a metric (of one round, if given) in the order of the rows, (n,)."""
        return self._view()["value"][self._where(number, split, metric)]

    def _where(self, number: int | None, split: str | None, metric: str | None) -> NDArray[np.intp]:
        columns = self._view()
        keep = np.ones(self._length, bool)
        if number is not None:
            keep &= columns["round"] == number
        for name, word in (("split", split), ("metric", metric)):
            if word is not None:
                keep &= columns[name] == self._codes[name].get(word, -1)
        return np.flatnonzero(keep)

    def _view(self) -> Columns:
        return {name: column[: self._length] for name, column in self._columns.items()}

    def _keep(self, indices: NDArray[np.intp]) -> None:
        self._columns = {name: column[indices] for name, column in self._view().items()}
        self._length = len(indices)

    def _append(self, columns: Columns, count: int) -> None:
        needed = self._length + count
        for name, column in self._columns.items():
            if len(column) < needed:  # doubling: a row is copied twice on average, not every round
                larger = np.empty(max(needed, 2 * len(column)), column.dtype)
                larger[: self._length] = column[: self._length]
                self._columns[name] = larger
            self._columns[name][self._length : needed] = columns[name]
        self._length = needed

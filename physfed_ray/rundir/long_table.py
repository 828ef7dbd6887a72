"""A long table, one value a row, as the Parquet files of a run directory hold it."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

MetricRow = tuple[int, str, str, str, float]
"""Round, client, split, metric, value."""
METRICS_FILE = "metrics.parquet"
METRIC_COLUMNS = ("round", "client", "split", "metric", "value")
SLICES_FILE = "slices.parquet"
SLICE_COLUMNS = ("client", "split", "patient", "slice", "metric", "value")

_NUMBERS: Mapping[str, Any] = {"round": np.int32, "slice": np.int32, "value": np.float64}
Columns = dict[str, NDArray[Any]]


class LongTable:
    """Rows of names, whole numbers (``round``, ``slice``) and one ``value``, in their order.

    A name is held once and stands in its column as a number (a dictionary encoding): the rows of
    a thousand clients over hundreds of rounds are entries of a few arrays, not Python objects.

    Args:
        names: The columns; the last is ``value``.
        rows: The rows to begin with.
    """

    def __init__(
        self, names: Sequence[str] = METRIC_COLUMNS, rows: Sequence[Sequence[Any]] = ()
    ) -> None:
        self.names = tuple(names)
        self._codes: dict[str, dict[str, int]] = {n: {} for n in names if n not in _NUMBERS}
        self._columns: Columns = {n: np.empty(0, _NUMBERS.get(n, np.int32)) for n in names}
        self._length = 0  # rows in use; the arrays have room for more
        self.add(rows)

    @classmethod
    def from_parquet(cls, content: bytes) -> Self:
        """Read the bytes of a Parquet file, whoever wrote it."""
        names = pq.read_schema(io.BytesIO(content)).names
        table = cls(names)
        # Neither pq.read_table nor to_numpy, which import pandas: half a second of every page.
        read = pq.ParquetFile(io.BytesIO(content), read_dictionary=list(table._codes)).read()
        columns = {n: _numbers(read[n]) for n in names if n not in table._codes}
        for name in table._codes:
            encoded = read[name].combine_chunks()
            words = encoded.dictionary.to_pylist()
            table._codes[name] = {word: i for i, word in enumerate(words)}
            columns[name] = _numbers(pa.chunked_array([encoded.indices]))
        table._append(columns, len(read))
        return table

    def to_parquet(self) -> bytes:
        """Return the bytes of a Parquet file: plain strings to whoever reads it."""
        arrays: dict[str, pa.Array] = {}
        for name, column in self._view().items():
            arrays[name] = pa.array(column)
            if name in self._codes:
                words = pa.array(list(self._codes[name]), pa.string())
                arrays[name] = pa.DictionaryArray.from_arrays(column, words)
        sink = io.BytesIO()
        encoded = [name for name in self.names if name != "value"]
        pq.write_table(pa.table(arrays), sink, use_dictionary=encoded, store_schema=False)
        return sink.getvalue()

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> NDArray[np.float64]:
        """The values, (rows,) float64."""
        return self._view()["value"]

    def column(self, name: str) -> list[Any]:
        """Return the entries of a column."""
        numbers: list[Any] = self._view()[name].tolist()
        if name not in self._codes:
            return numbers
        words = list(self._codes[name])
        return [words[code] for code in numbers]

    def rows(self, **equal: Any) -> list[tuple[Any, ...]]:
        """Return the rows whose columns equal the given values; all without a condition."""
        chosen = self.where(**equal) if equal else self
        return list(zip(*(chosen.column(name) for name in self.names), strict=True))

    def where(self, **equal: Any) -> Self:
        """Return the rows whose columns equal the given values."""
        keep = np.ones(self._length, dtype=bool)
        columns = self._view()
        for name, value in equal.items():
            code = self._codes[name].get(value, -1) if name in self._codes else value
            keep &= columns[name] == code
        chosen = type(self)(self.names)
        chosen._codes = {name: dict(codes) for name, codes in self._codes.items()}
        chosen._append({n: c[keep] for n, c in columns.items()}, int(keep.sum()))
        return chosen

    def distinct(self, name: str) -> list[Any]:
        """Return the distinct entries of a column in the order in which they first appear."""
        return list(dict.fromkeys(self.column(name)))

    def means(self, *by: str) -> dict[Any, float]:
        """Return the mean value of every group of rows, NaN entries left out.

        Args:
            by: Columns that make a group: one gives plain keys, more give tuples.
        """
        groups: dict[Any, list[float]] = {}
        keys = zip(*(self.column(name) for name in by), strict=True)
        for key, value in zip(keys, self.values.tolist(), strict=True):
            if not np.isnan(value):
                groups.setdefault(key if len(by) > 1 else key[0], []).append(value)
        return {key: float(np.mean(values)) for key, values in groups.items()}

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows."""
        if not rows:
            return
        columns: Columns = {}
        for name, entries in zip(self.names, zip(*rows, strict=True), strict=True):
            if name in self._codes:
                codes = self._codes[name]
                entries = tuple(codes.setdefault(word, len(codes)) for word in entries)
            columns[name] = np.array(entries, self._columns[name].dtype)
        self._append(columns, len(rows))

    def replace(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows; of several that differ in nothing but the value, the last stays.

        It stands where the first of them stood.
        """
        self.add(rows)
        columns = self._view()
        key = np.zeros(self._length, np.int64)
        for name in self.names[:-1]:
            span = len(self._codes[name]) if name in self._codes else columns[name].max(initial=0)
            key = key * (int(span) + 1) + columns[name]
        _, first = np.unique(key, return_index=True)
        _, last = np.unique(key[::-1], return_index=True)
        columns["value"][first] = columns["value"][len(key) - 1 - last].copy()
        self._keep(np.sort(first))

    def truncate(self, number: int) -> None:
        """Drop the rows of rounds after ``number``."""
        self._keep(np.flatnonzero(self._view()["round"] <= number))

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


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column of numbers; what is missing is NaN."""
    if column.null_count or not column.num_chunks:
        return np.asarray(column.to_numpy())
    return np.concatenate([np.from_dlpack(chunk) for chunk in column.chunks])

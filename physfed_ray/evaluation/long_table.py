"""A long table, one value a row, as the run directory's Parquet files hold it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

METRIC_COLUMNS = ("round", "client", "split", "metric", "value")
SLICE_COLUMNS = ("client", "split", "patient", "slice", "metric", "value")


@dataclass(frozen=True)
class LongTable:
    """Columns of equal length; ``value`` is float64.

    Attributes:
        columns: Every column by name, (rows,).
    """

    columns: Mapping[str, NDArray[Any]]

    @classmethod
    def empty(cls, names: Sequence[str]) -> "LongTable":
        """Return a table without rows."""
        columns = {name: np.empty(0, dtype=object) for name in names}
        return cls(columns | {"value": np.empty(0)})

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[Any]], names: Sequence[str]) -> "LongTable":
        """Return a table of the given rows, whose last column is the value."""
        if not rows:
            return cls.empty(names)
        columns = list(zip(*rows, strict=True))
        table = {n: np.array(c, dtype=object) for n, c in zip(names, columns, strict=True)}
        return cls(table | {"value": np.array(columns[-1], dtype=np.float64)})

    @classmethod
    def from_parquet(cls, content: bytes) -> "LongTable":
        """Read the bytes of a Parquet file."""
        table = pq.read_table(io.BytesIO(content))
        columns = {n: np.array(table[n].to_pylist(), dtype=object) for n in table.column_names}
        return cls(columns | {"value": np.array(table["value"], dtype=np.float64)})

    def to_parquet(self) -> bytes:
        """Return the bytes of a Parquet file with the same columns."""
        sink = io.BytesIO()
        pq.write_table(pa.table({n: pa.array(list(c)) for n, c in self.columns.items()}), sink)
        return sink.getvalue()

    def __len__(self) -> int:
        return len(self.columns["value"])

    @property
    def values(self) -> NDArray[np.float64]:
        """The values, (rows,) float64."""
        return np.asarray(self.columns["value"])

    def where(self, **equal: Any) -> "LongTable":
        """Return the rows whose columns equal the given values."""
        keep = np.ones(len(self), dtype=bool)
        for name, value in equal.items():
            keep &= self.columns[name] == value
        return LongTable({name: column[keep] for name, column in self.columns.items()})

    def distinct(self, name: str) -> list[Any]:
        """Return the distinct entries of a column in the order in which they first appear."""
        return list(dict.fromkeys(self.columns[name]))

    def means(self, *by: str) -> dict[Any, float]:
        """Return the mean value of every group of rows, NaN entries left out.

        Args:
            by: Columns that make a group: one gives plain keys, more give tuples.
        """
        groups: dict[Any, list[float]] = {}
        keys = zip(*(self.columns[name] for name in by), strict=True)
        for key, value in zip(keys, self.values, strict=True):
            if not np.isnan(value):
                groups.setdefault(key if len(by) > 1 else key[0], []).append(value)
        return {key: float(np.mean(values)) for key, values in groups.items()}

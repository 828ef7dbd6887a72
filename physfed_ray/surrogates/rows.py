"""What a study has measured so far: one Parquet file, and the settings that it belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from physfed_ray.atomic import atomic_file
from physfed_ray.data.patient import pseudonym, user_salt
from physfed_ray.errors import PhysFedError
from physfed_ray.surrogates.file import SurrogateFile

ROWS = "surrogate.parquet"
SETTINGS = "surrogate.yaml"
ATTACK = "attack"
"""What stands in the place of a task in rows of attacks."""
MAY_GROW = ("surrogate", "seeds", "betas", "tasks")
"""Keys that may change between two commands on one folder: rows name what they belong to."""
SCHEMA = pa.schema([
    ("seed", pa.int64()), ("task", pa.string()), ("beta", pa.float64()), ("measure", pa.string()),
    ("value", pa.float64()),
])  # fmt: skip


class Cell(NamedTuple):
    """What is measured together.

    Attributes:
        seed: One of the study's.
        task: A task, or ``ATTACK``.
        beta: 0 for the hosts alone; None for the patients' own images.
    """

    seed: int
    task: str
    beta: float | None


@dataclass
class Rows:
    """The measured values of a folder.

    Attributes:
        out: The folder.
        values: By cell and measure.
    """

    out: Path
    values: dict[Cell, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, out: Path) -> "Rows":
        """Read what a folder has; nothing where there is none.

        Raises:
            PhysFedError: The file is damaged.
        """
        rows, path = cls(out), out / ROWS
        if not path.exists():
            return rows
        try:
            table = pq.ParquetFile(path).read().cast(SCHEMA).to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise PhysFedError(
                f"{path} cannot be read ({error}): remove it, and the study measures again"
            ) from None
        for row in table:
            cell = Cell(row["seed"], row["task"], row["beta"])
            rows.values.setdefault(cell, {})[row["measure"]] = row["value"]
        return rows

    def add(self, cell: Cell, measured: dict[str, float]) -> None:
        """Add what a cell gave, on disk too."""
        self.values[cell] = measured
        table = [
            {**cell._asdict(), "measure": measure, "value": value}
            for cell, found in self.values.items()
            for measure, value in found.items()
        ]
        with atomic_file(self.out / ROWS) as path:
            pq.write_table(pa.Table.from_pylist(table, SCHEMA), path)

    def over_seeds(
        self, seeds: Sequence[int], task: str, beta: float | None, measure: str
    ) -> list[float]:
        """Return a measure of every seed that has it."""
        found = (self.values.get(Cell(seed, task, beta), {}) for seed in seeds)
        return [values[measure] for values in found if measure in values]


def settle(out: Path, file: SurrogateFile) -> None:
    """Write the settings of a study into its folder, or refuse a folder of other settings.

    Raises:
        PhysFedError: The folder's rows were measured with other settings.
    """
    path, now = out / SETTINGS, _settings(file)
    if path.exists():
        before: dict[str, Any] = yaml.safe_load(path.read_text())
        keys = [k for k in now if k not in MAY_GROW and before.get(k) != now[k]]
        if keys:
            raise PhysFedError(
                f"{out} holds a study with another '{keys[0]}': name another folder with --out, or "
                "set the key as it was"
            )
    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(now, sort_keys=False, allow_unicode=True))


def _settings(file: SurrogateFile) -> dict[str, Any]:
    """Return the study's keys; patients only by their pseudonyms."""
    content: dict[str, Any] = file.model_dump(mode="json", exclude={"data"})
    data = file.data.model_dump(mode="json", include=file.data.model_fields_set | {"window_hu"})
    if isinstance(file.data.test_patients, tuple):
        data["test_patients"] = [pseudonym(p, user_salt()) for p in file.data.test_patients]
    return {**content, "data": data}

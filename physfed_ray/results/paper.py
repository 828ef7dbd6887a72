"""The numbers that the SCAN-PhysFed paper printed, to stand beside one's own.

Yang et al. 2025, "Patient-level anatomy meets scanning-level physics: personalized federated
low-dose CT denoising empowered by large language model", CVPR, tables 1 to 4. They are typed in
from the paper into ``docs/paper_tables.csv``, a link to the file beside this module: PSNR in dB and
SSIM in %, as printed, under the names that methods and protocols have here. Its unseen protocols
are not public, so that ``unseen-1`` of table 3 is not the preset of that name.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from physfed_ray.results.runs import ClientEntry

CITATION = "Yang et al. 2025"
TABLES_SEEN = {"red_cnn": 1, "uformer": 2}
TABLE_UNSEEN, TABLE_ABLATION = 3, 4
AVERAGE = "average"
_ODD = 0.1  # rounding moves an average of printed numbers by less than a tenth of this


@dataclass(frozen=True)
class PaperTables:
    """All numbers by table, method, variant, client and metric."""

    values: Mapping[tuple[int, str, str, str, str], float]

    def value(self, table: int, method: str, client: str, metric: str, variant: str = "") -> float:
        """Return a number as it is printed, NaN where the paper has none.

        Args:
            table: 1 to 4.
            method: Name in the registry.
            client: Name of a protocol, or "average".
            metric: "psnr" (dB) or "ssim" (%).
            variant: Components of an ablation (table 4), else "".
        """
        return self.values.get((table, method, variant, client, metric), math.nan)

    def quotes(
        self,
        table: int,
        method: str,
        clients: Sequence[ClientEntry],
        metrics: Sequence[str],
        *,
        unseen: bool = False,
    ) -> NDArray[np.float64]:
        """Return what the paper printed for a row, NaN where it has nothing to say.

        Args:
            table: 1 to 3.
            method: Name in the registry.
            clients: The clients of the row.
            metrics: The metrics of each client.
            unseen: Whether the clients are unseen protocols, of which the paper's are not known.

        Returns:
            (clients + 1, metrics) float64; the last is the average, which is quoted only over
            all clients of the paper, or over unseen protocols.
        """
        names = [None if unseen else entry.preset for entry in clients]
        whole = unseen or sorted(map(str, names)) == self.clients(table)
        names.append(AVERAGE if whole else None)
        return np.array(
            [
                [self.value(table, method, name, m) if name else math.nan for m in metrics]
                for name in names
            ]
        )

    def clients(self, table: int) -> list[str]:
        """Return the names of a table's clients, sorted."""
        found = {key[3] for key in self.values if key[0] == table}
        return sorted(found - {AVERAGE})

    def odd_averages(self, table: int) -> list[tuple[str, str, float, float]]:
        """Return method, metric, printed average, and the mean of its clients where they differ."""
        found = []
        for (number, method, variant, client, metric), printed in self.values.items():
            if number == table and client == AVERAGE and (names := self.clients(table)):
                own = [self.value(table, method, name, metric, variant) for name in names]
                mean = sum(own) / len(own)
                if abs(mean - printed) > _ODD:
                    found.append((method, metric, printed, mean))
        return found


@lru_cache(maxsize=1)
def paper_tables() -> PaperTables:
    """Return the paper's tables 1 to 4."""
    source = files("physfed_ray.results") / "paper_tables.csv"
    lines = source.read_text(encoding="utf-8").splitlines()
    return PaperTables(dict(_entries(csv.DictReader(lines))))


def _entries(
    lines: Iterable[Mapping[str, str]],
) -> Iterable[tuple[tuple[int, str, str, str, str], float]]:
    for line in lines:
        key = (line["method"], line["variant"], line["client"], line["metric"])
        yield (int(line["table"]), *key), float(line["value"])

"""When clients can be reached: traces from a file, or drawn alternating periods."""

import csv
from collections.abc import Callable, Sequence

import numpy as np

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.federation import Availability
from physfed_ray.seeds import generator

COLUMNS = ("client", "from_round", "to_round")
Available = Callable[[int, int], bool]  # client index, round


def make_availability(settings: Availability | None, seed: int, ids: Sequence[str]) -> Available:
    """Return a function that says whether a client can be reached in a round.

    Args:
        settings: The experiment's ``federation.availability``; None: everybody always can.
        seed: The experiment's.
        ids: Name of each client.

    Raises:
        PhysFedError: The file cannot be read, or a line of it makes no sense.
    """
    if settings is None:
        return lambda client, number: True
    if settings.csv is not None:
        spans = _read(settings)
        unknown = sorted(set(spans) - set(ids))
        if unknown:
            raise PhysFedError(
                f"{settings.csv} names {unknown[0]!r}, which is not a client of this experiment; "
                f"correct it, or take the line out"
            )
        return lambda client, number: (
            ids[client] not in spans
            or any(first <= number <= last for first, last in spans[ids[client]])
        )
    periods = [_Periods(settings, seed, client) for client in ids]
    return lambda client, number: periods[client].on(number)


def _read(settings: Availability) -> dict[str, list[tuple[int, int]]]:
    spans: dict[str, list[tuple[int, int]]] = {}
    where = settings.csv
    try:
        with open(str(where), newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            if lines.fieldnames is None or set(lines.fieldnames) != set(COLUMNS):
                raise PhysFedError(
                    f"{where} must begin with a line of the columns {','.join(COLUMNS)}"
                )
            for line in lines:
                spans.setdefault(line["client"], []).append(_span(line, lines.line_num, where))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PhysFedError(f"federation.availability.csv cannot be read: {error}") from None
    return spans


def _span(line: dict[str, str], number: int, where: object) -> tuple[int, int]:
    try:
        first, last = int(line["from_round"]), int(line["to_round"])
    except (TypeError, ValueError):
        first, last = 1, 0
    if not 1 <= first <= last:
        raise PhysFedError(
            f"{where}, line {number}: from_round and to_round must be whole numbers with "
            f"1 <= from_round <= to_round, not {line['from_round']!r} and {line['to_round']!r}"
        )
    return first, last


class _Periods:
    """Alternating periods of geometric length, drawn as far as they are asked for."""

    def __init__(self, settings: Availability, seed: int, client: str) -> None:
        on, off = settings.on_rounds or 1.0, settings.off_rounds or 1.0
        self._means = (off, on)
        self._rng = generator(seed, client, "availability")
        self._state = bool(self._rng.random() < on / (on + off))
        self._rounds = np.zeros(0, bool)

    def on(self, number: int) -> bool:
        """Say whether the client can be reached in a round, 1 for the first."""
        while len(self._rounds) < number:
            length = int(self._rng.geometric(1 / self._means[self._state]))
            self._rounds = np.append(self._rounds, np.full(length, self._state))
            self._state = not self._state
        return bool(self._rounds[number - 1])

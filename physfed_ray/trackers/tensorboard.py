"""TensorBoard's event files."""

import logging
from collections.abc import Sequence

from physfed_ray.rundir.long_table import MetricRow
from physfed_ray.trackers.base import Curves, Status, Tracker


class TensorBoard(Tracker):
    """Event files in the run directory.

    Args:
        root: Run directory, a local path or an fsspec URL.
    """

    def __init__(self, root: str) -> None:
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(root)
        self._curves = Curves()

    def add(self, rows: Sequence[MetricRow]) -> None:
        """See ``Tracker.add``."""
        for number, values in self._curves.points(rows).items():
            for name, value in values.items():
                self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def finish(self, status: Status) -> None:
        """Close the file; TensorBoard knows no status."""
        self._writer.close()

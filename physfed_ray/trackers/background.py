"""Trackers in threads, so that no tool can slow or stop a run."""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from physfed_ray.rundir.long_table import MetricRow
from physfed_ray.trackers.base import Status, Tracker, Warn

FINISH_S = 30.0


class Background(Tracker):
    """Runs a tracker in a thread; what fails is tried again with the next rows.

    Args:
        title: Name of the tool.
        start: Makes the tracker.
        warn: See ``make_tracker``.
    """

    def __init__(self, title: str, start: Callable[[], Tracker], warn: Warn) -> None:
        self._title, self._start, self._warn = title, start, warn
        self._trouble = ""
        self._warned = False
        self._queue: SimpleQueue[Sequence[MetricRow] | Status] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"tracker {title}", daemon=True)
        self._thread.start()
        self._queue.put([])  # so that the run shows before its first round

    def add(self, rows: Sequence[MetricRow]) -> None:
        """See ``Tracker.add``."""
        self._queue.put(list(rows))
        self._tell("it is tried again after every round")

    def finish(self, status: Status) -> None:
        """See ``Tracker.finish``; gives up after ``FINISH_S``."""
        self._queue.put(status)
        self._thread.join(FINISH_S)
        if self._thread.is_alive():
            self._trouble = self._trouble or f"no answer in {FINISH_S:g} s"
        self._tell("metrics.parquet has what it misses")

    def _tell(self, hope: str) -> None:
        if self._trouble and not self._warned:
            self._warned = True
            self._warn(f"{self._title} did not take the curves ({self._trouble}): {hope}")

    def _work(self) -> None:
        tracker: Tracker | None = None
        waiting: list[Sequence[MetricRow]] = []
        while True:
            item = self._queue.get()
            if not isinstance(item, str):
                waiting.append(item)
            try:
                tracker = tracker or self._start()
                while waiting:
                    tracker.add(waiting[0])
                    waiting.pop(0)
                if isinstance(item, str):
                    tracker.finish(item)
            except Exception as error:  # a tool may raise anything, and none may stop a run
                self._trouble = (str(error) or type(error).__name__).splitlines()[0]
            if isinstance(item, str):
                return


class Together(Tracker):
    """Feeds several trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def add(self, rows: Sequence[MetricRow]) -> None:
        """See ``Tracker.add``."""
        for tracker in self._trackers:
            tracker.add(rows)

    def finish(self, status: Status) -> None:
        """See ``Tracker.finish``."""
        for tracker in self._trackers:
            tracker.finish(status)

"""Time that is left, and an end to what takes longer."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RESERVE_S = 6.0
"""Seconds at the end for the last lines of the page."""


class OutOfTime(BaseException):
    """The time of a step is over. Not an ``Exception``, so that nothing on its way swallows it."""


class Clock:
    """Counts down from the start of the process's work.

    Args:
        minutes: After which everything has ended.
    """

    def __init__(self, minutes: float) -> None:
        self.began = time.monotonic()
        self._end = self.began + 60 * minutes - RESERVE_S

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self._end - time.monotonic())

    @contextmanager
    def limit(self, seconds: float) -> Iterator["Clock"]:
        """Raise ``OutOfTime`` in the block after so many seconds, and give it a clock of its own.

        The signal interrupts Python between two of its instructions, and waits for a call into a
        library: those are short here.
        """

        def over(number: int, frame: FrameType | None) -> None:
            raise OutOfTime

        seconds, began = max(0.001, min(seconds, self.left())), time.monotonic()
        before = signal.signal(signal.SIGALRM, over)
        outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield Clock((seconds + RESERVE_S) / 60)
        finally:
            rest = max(0.001, outer - (time.monotonic() - began)) if outer else 0.0
            signal.signal(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, rest)

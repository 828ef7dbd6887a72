"""A Ray that says nothing in the terminal by itself: errors are raised, the rest is logged."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private.ray_logging import stdout_deduplicator

REPAIRED = re.compile("so the task will be retried|A worker died or was killed while executing")
"""What Ray tells of faults that it repairs, or that reach the caller as an error."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the Ray that the block joins or starts from writing to the terminal.

    Else its native code would say of every actor of Ray Data that its arguments might get lost;
    they do not, because the driver holds them.
    """
    stdout_deduplicator.skip_re = REPAIRED
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nothing:  # to which the native code tells its log level
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)

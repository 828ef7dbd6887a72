"""Writing files while the caller goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

WRITERS = 8  # files under way at once; bounds the memory that they take as well


class BackgroundWrites:
    """Runs writes in threads, so that they share a disk's flushes and a bucket's latency.

    Args:
        write: Writes a file, given its name and content; safe to call from several threads.
    """

    def __init__(self, write: Callable[[str, bytes], None]) -> None:
        self._write = write
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[str, Future[None]] = {}

    def submit(self, name: str, content: bytes) -> None:
        """Begin to write a file; waits for the oldest when too many are under way."""
        self.finish(name)
        if len(self._pending) >= WRITERS:
            self.finish(next(iter(self._pending)))
        self._pool = self._pool or ThreadPoolExecutor(WRITERS, "run-directory")
        self._pending[name] = self._pool.submit(self._write, name, content)

    def finish(self, name: str) -> None:
        """Wait for a file, if it is under way; raises what its write raised."""
        future = self._pending.pop(name, None)
        if future is not None:
            future.result()

    def finish_all(self) -> None:
        """Wait for all files; raises what the first failing write raised."""
        pending, self._pending = self._pending, {}
        wait(pending.values())
        for future in pending.values():
            future.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

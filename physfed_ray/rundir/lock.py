"""One process at a time writes a folder: a lock on a disk, a lease in a bucket.

On a disk it is the kernel's lock on a file, which ends with the process that holds it, however that
ends. A bucket knows no locks: there the holder writes an object again and again, and whoever finds
one that nobody writes any more takes it over. Nobody compares clocks: a lease is watched until it
changes or has been silent for long enough.
"""

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.bucket_files import BucketFiles
from physfed_ray.rundir.local_files import local_path

LOCK_FILE = ".lock"
LEASE_FILE = "lock.json"
RENEW_S = 15.0
SILENCE_S = 60.0
"""A lease that was not written for so long is that of a process which is gone."""
LOOK_S = 0.5
SETTLE_S = 1.0
"""Two who begin at once both write; after this time both see who was last.

Not every store can write only what is not there yet. Where a write takes longer than this, the one
who was first notices before it commits a round."""


@contextmanager
def alone(
    root: str | Path, notice: Callable[[str], None] = lambda text: None
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a folder, so that no second process writes the same files.

    Args:
        root: The folder, a local path or an fsspec URL. A local one is made where it is not there.
        notice: Receives one line when a lease is watched before it is taken over.

    Yields:
        What raises a ``PhysFedError`` once another process has taken the folder over.

    Raises:
        PhysFedError: Another process holds the lock.
    """
    local = local_path(str(root))
    if local is None:
        with _lease(str(root), notice) as check:
            yield check
        return
    with _lock(local):
        yield lambda: None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise PhysFedError(f"{folder} is a file, not a folder: choose another --out") from None
    except OSError as error:
        raise PhysFedError(
            f"{folder} cannot be written ({error.strerror}): make it writable, or choose another "
            "--out"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                holder = os.pread(handle, 4096, 0)
                raise _refusal(str(folder), holder) from None
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise
            # Some network disks have no locks: two processes are the user's to avoid there.
        with contextlib.suppress(OSError):  # the words are a help; the lock is the kernel's
            os.ftruncate(handle, 0)
            os.pwrite(handle, _said(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def _lease(root: str, notice: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    lease = Lease(root)
    lease.take(notice)
    try:
        yield lease.check
    finally:
        lease.release()


class Lease:
    """A lock in a bucket: an object that its holder writes every ``RENEW_S`` seconds.

    Args:
        root: URL of the folder.
    """

    def __init__(self, root: str) -> None:
        self._root, self._files = root, BucketFiles(root)
        self._token, self._count = uuid4().hex, 0
        self._since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        self._taken_over: bytes | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self, notice: Callable[[str], None]) -> None:
        """Take the lease, once nobody holds it.

        Raises:
            PhysFedError: Somebody does.
        """
        there = self._read()
        if there is not None:
            self._watch(there, notice)
        self._write()
        time.sleep(SETTLE_S)
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Refuse to go on when somebody else has the lease.

        Raises:
            PhysFedError: Somebody has.
        """
        self._look()
        if self._taken_over is not None:
            raise _refusal(self._root, self._taken_over)

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(PhysFedError):  # the bucket is gone: silence ends it as well
            self._look()
            if self._taken_over is None:
                self._files.remove([LEASE_FILE])

    def _watch(self, there: bytes, notice: Callable[[str], None]) -> None:
        """Wait until a lease has been silent for long enough; refuse when it is written."""
        if _is_dead(there):
            return
        notice(
            f"{self._root} is held by {_who(there)}; waiting up to {SILENCE_S:.0f} s to see "
            "whether that process is still at work"
        )
        ends = time.monotonic() + SILENCE_S
        while time.monotonic() < ends:
            time.sleep(LOOK_S)
            now = self._read()
            if now is None:
                return
            if now != there:
                raise _refusal(self._root, now)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S) and self._taken_over is None:
            with contextlib.suppress(PhysFedError):  # out of reach: the run's own files say so
                self._look()
                if self._taken_over is None:
                    self._write()

    def _look(self) -> None:
        there = self._read()
        if there is not None and _parsed(there).get("token") != self._token:
            self._taken_over = there

    def _read(self) -> bytes | None:
        try:
            return self._files.read(LEASE_FILE)
        except FileNotFoundError:
            return None

    def _write(self) -> None:
        self._count += 1
        self._files.write(LEASE_FILE, _said(self._since, token=self._token, count=self._count))


def _said(since: str = "", **more: object) -> bytes:
    """Return who this process is."""
    began = since or time.strftime("%Y-%m-%d %H:%M:%S %Z")
    own = {"host": os.uname().nodename, "pid": os.getpid(), "since": began, "machine": _machine()}
    return (json.dumps({**own, **more}) + "\n").encode()


def _machine() -> str:
    """Return what two processes share that see each other's ids: one boot, one container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _parsed(content: bytes) -> dict[str, object]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_dead(content: bytes) -> bool:
    """Say whether a holder was a process of this machine that has ended."""
    holder = _parsed(content)
    pid, machine = holder.get("pid"), _machine()
    if not machine or holder.get("machine") != machine or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _who(content: bytes) -> str:
    holder = _parsed(content)
    if "pid" not in holder:
        return "another process"
    return f"process {holder['pid']} on {holder.get('host')} since {holder.get('since')}"


def _refusal(root: str, content: bytes) -> PhysFedError:
    return PhysFedError(
        f"another `physfed` is at work in {root} ({_who(content)}): wait for it or end it, or "
        "choose another --out"
    )

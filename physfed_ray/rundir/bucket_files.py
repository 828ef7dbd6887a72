"""Files in a bucket (any fsspec file system), which may be out of reach for a while."""

import errno
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import fsspec

from physfed_ray.errors import PhysFedError

LOG = logging.getLogger(__name__)
RETRY_S = 600.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
LOG_INTERVAL_S = 10.0
SILENCE_S, SLOWEST = 60.0, 256 * 1024
"""A write that takes longer than this, and a second for so many bytes, is begun again."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"} | dict.fromkeys(
    ("az", "abfs", "abfss", "adl"), "azure"
)

# Classes are known by name: the libraries behind fsspec are optional and cannot be imported here.
UNREACHABLE = frozenset(
    {
        "HTTPClientError",  # botocore
        "ConnectionError",
        "ResponseParserError",
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "IncompleteRead",  # http.client, urllib3
        "TransportError",  # google.auth
        "ServiceRequestError",  # azure.core
        "ServiceResponseError",
    }
)
NO_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",  # botocore
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "GoogleAuthError",
        "ClientAuthenticationError",  # azure.core
    }
)
REFUSED = (
    PermissionError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)
REFUSED_CODES = (
    errno.EINVAL,
    errno.EPERM,
    errno.EREMCHG,  # s3fs: the bucket lies in another region
    errno.ENOSYS,
    errno.ENAMETOOLONG,
    errno.EMSGSIZE,
    errno.ENOTEMPTY,
)
JITTER = random.Random()  # its own stream: waiting must not disturb anybody's draws
T = TypeVar("T")


class BucketFiles:
    """Files by their name below a URL.

    Every call waits for a bucket that is out of reach, up to ``PHYSFED_BUCKET_RETRY_S`` seconds.

    Args:
        url: Such as ``s3://bucket/run``.

    Raises:
        PhysFedError: If nothing installed can speak to such a URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self.base = _open(url)
        self._lock = threading.Lock()
        self._down_since: float | None = None
        self._logs: dict[str, bytearray] = {}
        self._unwritten: set[str] = set()
        self._logs_written = -LOG_INTERVAL_S

    def exists(self, name: str) -> bool:
        """Say whether a file or folder is there."""
        self._settle(name)
        return bool(self._call(name, self._fs.exists, self._path(name)))

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        self._settle(name)
        return bytes(self._call(name, self._fs.cat_file, self._path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file; a bucket shows an object when it is complete.

        Raises:
            PhysFedError: If there is no such bucket, it refuses, or it is out of reach too long.
        """
        # aiobotocore waits without end for a server to accept a body that it was told of.
        limit = SILENCE_S + len(content) / SLOWEST
        options = {"timeout": limit} if self._fs.async_impl else {}
        try:
            self._call(name, self._fs.pipe_file, self._path(name), content, **options)
        except FileNotFoundError as error:
            raise PhysFedError(
                f"{self.url} cannot be written: there is no such bucket; create it or choose "
                "another --out"
            ) from error

    def append(self, name: str, line: bytes) -> None:
        """Append to a file; as a bucket can only replace it, that waits for some more lines."""
        if name not in self._logs:
            self._logs[name] = bytearray(self.read(name) if self.exists(name) else b"")
        self._logs[name] += line
        self._unwritten.add(name)
        if time.monotonic() - self._logs_written >= LOG_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        for name in sorted(self._unwritten):
            self.write(name, bytes(self._logs[name]))
        self._unwritten.clear()
        self._logs_written = time.monotonic()

    def sync_folders(self, names: Iterable[str]) -> None:
        """Do nothing: an object that was written lasts."""

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders right below a folder, none when it is not there."""
        return self._children(name, "directory")

    def files(self, name: str = "") -> list[str]:
        """Return the names of the files right below a folder."""
        self.flush()
        return self._children(name, "file")

    def find(self, folder: str) -> list[str]:
        """Return the names (below the root) of all files below a folder."""
        try:
            found = self._call(folder, self._fs.find, self._path(folder))
        except FileNotFoundError:
            return []
        return [str(path)[len(self.base) + 1 :] for path in found]

    def remove(self, names: Iterable[str]) -> None:
        """Delete files, as many with one request as the bucket allows."""
        paths = [self._path(name) for name in names]
        if not paths:
            return
        try:
            self._call("", self._fs.rm, paths)
        except FileNotFoundError:  # an answer was lost, or somebody was faster: one by one
            for path in paths:
                if self._call("", self._fs.exists, path):
                    self._call("", self._fs.rm, path)

    def free_bytes(self) -> None:
        """Return None: a bucket is never full."""

    def _path(self, name: str) -> str:
        return f"{self.base}/{name}" if name else self.base

    def _settle(self, name: str) -> None:
        if name in self._unwritten:
            self.flush()

    def _children(self, name: str, kind: str) -> list[str]:
        try:
            found = self._call(name, self._fs.ls, self._path(name), detail=True)
        except FileNotFoundError:
            return []
        paths = [str(entry["name"]).rstrip("/") for entry in found if entry["type"] == kind]
        return [path.rsplit("/", 1)[-1] for path in paths]

    def _call(self, name: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call the file system again and again while it is out of reach."""
        limit = _retry_s()
        began, wait = time.monotonic(), FIRST_WAIT_S
        while True:
            try:
                result = function(*args, **options)
            except Exception as error:
                left = began + limit - time.monotonic()
                self._refuse(name, error)
                if left <= 0:
                    raise PhysFedError(
                        f"{self.url} was out of reach for {limit:.0f} s ({_words(error)}), last "
                        f"for {name or 'its files'}; the rounds that were completed are safe: mend "
                        "the connection and run again with --resume"
                    ) from error
                self._note_down(error, limit)
                time.sleep(min(left, wait * JITTER.uniform(0.5, 1.0)))
                wait = min(2 * wait, LONGEST_WAIT_S)
            else:
                self._note_up()
                return result

    def _refuse(self, name: str, error: Exception) -> None:
        """Raise the error, as a sentence where a user can mend it, unless waiting may help."""
        if _is_unreachable(error):
            return
        if _names(error) & NO_CREDENTIALS:
            raise PhysFedError(
                f"{self.url} needs credentials and there are none ({_words(error)}): give this "
                "machine a role that may use the bucket, or set the keys in its environment"
            ) from error
        if isinstance(error, PermissionError) or getattr(error, "errno", None) in REFUSED_CODES:
            raise PhysFedError(
                f"{self.url} refuses {name or 'access'} ({_words(error)}): check the bucket's "
                "name and region, and that this machine's credentials may list, read, write and "
                "delete there"
            ) from error
        raise error

    def _note_down(self, error: Exception, limit: float) -> None:
        with self._lock:
            if self._down_since is not None:
                return
            self._down_since = time.monotonic()
        LOG.warning(
            "%s is out of reach (%s): trying again for up to %.0f s",
            self.url,
            _words(error),
            limit,
        )

    def _note_up(self) -> None:
        with self._lock:
            if self._down_since is None:
                return
            seconds, self._down_since = time.monotonic() - self._down_since, None
        LOG.warning("%s answers again after %.0f s", self.url, seconds)


def _open(url: str) -> tuple[Any, str]:
    protocol = url.split("://", 1)[0]
    try:
        # Other processes write there as well: a cached listing would be a stale one.
        fs, base = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        cure = f"pip install 'physfed_ray[{extra}]'" if extra else str(error)
        raise PhysFedError(f"{url} needs a package that is not installed: {cure}") from error
    except ValueError as error:
        raise PhysFedError(
            f"{url} is no place to write to ({error}): give a folder, or an s3://, gs:// or "
            "az:// URL"
        ) from error
    return fs, str(base).rstrip("/")


def _retry_s() -> float:
    text = os.environ.get("PHYSFED_BUCKET_RETRY_S", str(RETRY_S))
    try:
        return float(text)
    except ValueError as error:
        raise PhysFedError(
            f"PHYSFED_BUCKET_RETRY_S is {text!r}: it must be a number of seconds"
        ) from error


def _is_unreachable(error: Exception) -> bool:
    if isinstance(error, OSError):  # most file systems translate their errors
        return not isinstance(error, REFUSED) and error.errno not in REFUSED_CODES
    status = getattr(error, "status_code", None) or getattr(error, "code", None)  # azure, gcsfs
    if isinstance(status, int):
        return status >= 500 or status in (408, 429)
    return bool(_names(error) & UNREACHABLE)


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ").replace("\n", " ")

"""Files below a local folder, written whole or not at all, and on the disk when that returns."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import fsspec

from physfed_ray.errors import PhysFedError

CURES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


class LocalFiles:
    """Files by their name below a folder.

    Args:
        root: The folder, created by the first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def exists(self, name: str) -> bool:
        """Say whether a file or folder is there."""
        return (self._root / name).exists()

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return (self._root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a file; when this returns, a power cut no longer loses it.

        ``sync_folders`` must follow for the file's name to last as well.

        Raises:
            PhysFedError: If the disk refuses; what was there before is untouched.
        """
        target = self._root / name
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            _write_synced(temporary, content)
            os.replace(temporary, target)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if isinstance(error, OSError):
                raise self._refusal(target, error) from error
            raise

    def append(self, name: str, line: bytes) -> None:
        """Append to a file.

        Raises:
            PhysFedError: If the disk refuses.
        """
        target = self._root / name
        try:
            _make_folder(target.parent)
            with open(target, "ab") as file:
                file.write(line)
        except OSError as error:
            raise self._refusal(target, error) from error

    def flush(self) -> None:
        """Do nothing: every line was appended at once."""

    def sync_folders(self, names: Iterable[str]) -> None:
        """Make the names of files last: the folders that hold them reach the disk."""
        for folder in {Path(name).parent for name in names}:
            if (self._root / folder).is_dir():
                _sync_folder(self._root / folder)

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders right below a folder, none when it is not there."""
        try:
            with os.scandir(self._root / name) as entries:
                return [entry.name for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return []

    def files(self, name: str = "") -> list[str]:
        """Return the names of the files right below a folder."""
        return [path.name for path in (self._root / name).iterdir() if path.is_file()]

    def find(self, folder: str) -> list[str]:
        """Return the names (below the root) of all files below a folder."""
        root = str(self._root)
        return [
            os.path.join(os.path.relpath(here, root), file)
            for here, _, files in os.walk(self._root / folder)
            for file in files
        ]

    def remove(self, names: Iterable[str]) -> None:
        """Delete files, and the folders that are empty without them.

        Raises:
            PhysFedError: If the disk refuses, or a folder is where a file should be.
        """
        folders = set()
        for name in names:
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._root / name)
            except OSError as error:
                why = error.strerror or error
                raise PhysFedError(
                    f"{self._root / name} cannot be deleted: {why}; remove it, or choose another "
                    "--out"
                ) from error
            folders |= set(Path(name).parents) - {Path(".")}
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(self._root / folder)

    def free_bytes(self) -> int:
        """Return the free space of the disk."""
        folder = self._root
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def _refusal(self, target: Path, error: OSError) -> PhysFedError:
        cure = CURES.get(error.errno or 0, "mend the disk")
        return PhysFedError(
            f"{target} cannot be written: {error.strerror or error} "
            f"({self.free_bytes() / 1e6:.1f} MB free); the rounds that were completed are safe: "
            f"{cure} and run again with --resume, or choose another --out"
        )


def local_path(root: str) -> Path | None:
    """Return the local path that a root means, None for another file system's URL."""
    protocol, separator, _ = root.partition("://")
    if separator and protocol not in ("file", "local"):
        return None
    return Path(fsspec.core.url_to_fs(root)[1])


def _write_synced(path: Path, content: bytes) -> None:
    try:
        file = open(path, "wb")  # noqa: SIM115
    except FileNotFoundError:
        _make_folder(path.parent)
        file = open(path, "wb")  # noqa: SIM115
    with file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks have no such call
            raise
    finally:
        os.close(handle)

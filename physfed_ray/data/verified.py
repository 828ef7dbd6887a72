"""Arrow files that carry the checksums of their columns, compared when a process first opens them.

Comparing reads the whole file once, at the rate of the disk or of SHA-256 (about 1.5 GB/s a core);
after that the file is mapped as if nothing had been asked, also where each round opens it anew.
"""

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from physfed_ray.atomic import atomic_file
from physfed_ray.checksum import SEAL, checksum, column_checksums
from physfed_ray.errors import DamagedError

CURE = "run `physfed prepare` again, which makes it anew"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, MemoryError, pa.ArrowException)
CHECKERS = 4
FURTHER = b"further"
Stamp = tuple[int, int, int, int]
_compared: dict[Path, tuple[Stamp, dict[str, str]]] = {}


def write_batch(path: Path, columns: Mapping[str, Any], kind: bytes, further: bytes = b"") -> None:
    """Write one uncompressed record batch with the checksums of its columns, atomically.

    Args:
        path: The file; its name is part of what is checked.
        columns: Arrow arrays of the same length.
        kind: What the file is, for ``open_batch``.
        further: What is to be said of the whole file; it is ``FURTHER`` of the schema's metadata.
    """
    batch = pa.record_batch(dict(columns))
    sums = {"file": path.name, "columns": column_checksums(batch), "further": checksum(further)}
    own = json.dumps(sums).encode()
    batch = batch.replace_schema_metadata({b"format": kind, SEAL.encode(): own, FURTHER: further})
    with (
        atomic_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as writer,
    ):
        writer.write_batch(batch)


def open_batch(path: Path, kind: bytes) -> Any:
    """Map a file that ``write_batch`` wrote; its first opening in a process reads all of it.

    Raises:
        DamagedError: It is missing, of another kind, another's, or not as it was written.
    """
    try:
        stamp = _stamp(path)
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata or {}
        if metadata.get(b"format") != kind or reader.num_record_batches != 1:
            raise pa.ArrowInvalid("another format")
        batch = reader.get_batch(0)
        if path not in _compared or _compared[path][0] != stamp:
            columns = _compare(path, batch, metadata)
            if _stamp(path) == stamp:
                _compared[path] = stamp, columns
        return batch
    except DamagedError:
        raise
    except UNREADABLE as error:
        what = f"cannot be read as prepared data ({type(error).__name__})"
        raise DamagedError(str(path), CURE, what) from error


def column_sums(path: Path, kind: bytes) -> dict[str, str]:
    """Return the checksums of a file's columns, which it is compared with first.

    Raises:
        DamagedError: As ``open_batch`` does.
    """
    batch = open_batch(path, kind)
    return _compared[path][1] if path in _compared else column_checksums(batch)


def content_sum(columns: Mapping[str, str]) -> str:
    """Return one checksum for those of some columns."""
    return checksum(json.dumps(dict(columns), sort_keys=True).encode())


def damaged(paths: Iterable[tuple[Path, bytes]]) -> list[DamagedError]:
    """Compare files of some kinds with their checksums, and return what is wrong."""

    def look(named: tuple[Path, bytes]) -> DamagedError | None:
        try:
            open_batch(*named)
        except DamagedError as error:
            return error
        return None

    with ThreadPoolExecutor(min(CHECKERS, os.cpu_count() or 1)) as pool:
        return [error for error in pool.map(look, paths) if error is not None]


def _compare(path: Path, batch: Any, metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    batch.validate(full=True)
    own = json.loads(metadata[SEAL.encode()])
    if own["file"] != path.name:
        raise DamagedError(str(path), CURE, f"is another file ({own['file']}) under this name")
    columns: dict[str, str] = column_checksums(batch)
    if columns != own["columns"] or checksum(metadata[FURTHER]) != own["further"]:
        raise DamagedError(str(path), CURE)
    return columns


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

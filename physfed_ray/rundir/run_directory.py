"""The run directory: atomic files, tables and checkpoints, in a local folder or a bucket."""

import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from physfed_ray.checksum import checksum
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.rundir import formats
from physfed_ray.rundir.background import BackgroundWrites
from physfed_ray.rundir.bucket_files import BucketFiles
from physfed_ray.rundir.local_files import LocalFiles, local_path
from physfed_ray.rundir.long_table import METRIC_COLUMNS, LongTable
from physfed_ray.rundir.manifest import PART_CURE, Manifest, client_file, manifest_name, round_name
from physfed_ray.rundir.recorded_files import RecordedFiles, cure_of

__all__ = [
    "LEARNING_RATES",
    "RESULT_FILES",
    "Manifest",
    "RunDirectory",
    "client_file",
    "require_empty",
    "round_name",
]

LOG = logging.getLogger(__name__)

RESULT_FILES = (
    "metrics.parquet", "slices.parquet", "examples.npz", "codebook.npz", "summary.json",
)  # fmt: skip
"""What the end of a run writes, and ``--resume`` writes anew."""
LEARNING_RATES = "learning_rates.json"
"""Beside the runs of a suite: the rates that its trials have chosen."""


class RunDirectory:
    """Files below one root: a local path or any fsspec URL (``s3://``, ``gs://``).

    Every write is whole or not at all. A local disk that refuses one is a ``PhysFedError``; a
    bucket out of reach is waited for (``PHYSFED_BUCKET_RETRY_S`` seconds, 600 by default).

    What is read back is compared with the checksum that was taken when it was written: of files
    right below the root by ``read`` and its kind (``rundir.recorded_files``), of the parts of a
    checkpoint where the manifest's checksum is given. A file that is not as it was written is a
    ``DamagedError``.

    Args:
        root: The path or URL.

    Attributes:
        notice: Receives one line of text when a copy stands in for a damaged file.
        guard: Called before a round is committed; raises if this process may no longer write.

    Raises:
        PhysFedError: If no installed package speaks to such a URL.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        local = local_path(self.root)
        self.local_path: Path | None = local  # None on a bucket
        self.notice: Callable[[str], None] = LOG.warning
        self.guard: Callable[[], None] = lambda: None
        self._files = BucketFiles(self.root) if local is None else LocalFiles(local)
        self._recorded = RecordedFiles(self._files, self.root, lambda text: self.notice(text))
        self._background = BackgroundWrites(self._files.write)
        self._unsynced: set[str] = set()
        self._manifests: dict[int, Manifest] = {}

    def check(self) -> None:
        """Write and delete a small file, so that a run learns at once that it could not write.

        Raises:
            PhysFedError: If the disk or bucket refuses, or does not exist.
        """
        self.write(".write-check", b"")
        self._files.remove([".write-check"])

    def path(self, name: str) -> str:
        """Return the full path of a file for ``fsspec``."""
        base = self._files.base if isinstance(self._files, BucketFiles) else self.local_path
        return f"{base}/{name}"

    def exists(self, name: str) -> bool:
        """Say whether a file is there."""
        self._background.finish(name)
        return self._files.exists(name)

    def names(self) -> set[str]:
        """Return the names of the files and folders right below the root."""
        if self.local_path is not None and not self.local_path.is_dir():
            return set()
        return {*self._files.files(), *self._files.folders("")}

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders right below a folder, none where it is not there."""
        return self._files.folders(name)

    def has(self, name: str) -> bool:
        """Say whether a file right below the root was ever written.

        Raises:
            DamagedError: It was, and is gone.
        """
        self._background.finish(name)
        return self._recorded.has(name) if self._recorded.covers(name) else self.exists(name)

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            DamagedError: It has a checksum right below the root, and another content.
            FileNotFoundError: It was never there.
        """
        self._background.finish(name)
        return (self._recorded if self._recorded.covers(name) else self._files).read(name)

    def read_part(self, name: str, expected: str | None) -> bytes:
        """Return the bytes of a part of a checkpoint.

        Args:
            name: The file.
            expected: Its checksum in a manifest, None where an earlier version took none.

        Raises:
            DamagedError: It is gone, or not as it was written.
        """
        try:
            content = self.read(name)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise DamagedError(f"{self.root}/{name}", PART_CURE, "is gone") from None
        if expected is not None and checksum(content) != expected:
            raise DamagedError(f"{self.root}/{name}", PART_CURE)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; it is safe when this returns."""
        self._background.finish(name)
        if self._recorded.covers(name):
            self._recorded.write(name, content)
            return
        self._files.write(name, content)
        self._files.sync_folders([name])

    def write_later(self, name: str, content: bytes) -> None:
        """Write a file while the caller goes on; it is safe when ``sync`` returns.

        The process that writes is the one that waits for the disk: on network disks no other
        machine could. So a manifest that is written after every writer's ``sync`` names only files
        that are safe, wherever the writers run.
        """
        self._background.submit(name, content)
        self._unsynced.add(name)

    def sync(self) -> None:
        """Wait until all that was given to ``write_later`` is safe.

        Raises:
            PhysFedError: If one of those writes was refused.
        """
        self._background.finish_all()
        self._files.sync_folders(self._unsynced)
        self._unsynced.clear()

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], *, later: bool = False
    ) -> str:
        """Write tensors as safetensors; ``later`` as in ``write_later``. Return the checksum."""
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        content = safetensors.torch.save(contiguous)
        (self.write_later if later else self.write)(name, content)
        return checksum(content)

    def read_tensors(self, name: str, expected: str | None = None) -> dict[str, Tensor]:
        """Read a safetensors file; see ``read_part``."""
        content = self.read_part(name, expected)
        return formats.tensors_of(content, f"{self.root}/{name}", PART_CURE)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        self.write(name, (json.dumps(value, indent=1) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Read a JSON file; see ``read``."""
        return formats.json_of(self.read(name), f"{self.root}/{name}", cure_of(name))

    def read_yaml(self, name: str) -> dict[str, Any]:
        """Read a YAML file that holds a mapping; see ``read``."""
        return formats.yaml_of(self.read(name), f"{self.root}/{name}", cure_of(name))

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write NumPy arrays as one ``.npz`` file (no pickled objects)."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        self.write(name, buffer.getvalue())

    def read_arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Read an ``.npz`` file, none where it was never written; see ``read``."""
        if not self.has(name):
            return {}
        return formats.arrays_of(self.read(name), f"{self.root}/{name}", cure_of(name))

    def write_table(self, name: str, table: LongTable) -> None:
        """Write a table as a Parquet file."""
        self.write(name, table.to_parquet())

    def read_table(self, name: str, columns: Sequence[str] = METRIC_COLUMNS) -> LongTable:
        """Read a Parquet file with those columns; no rows where it was never written."""
        if not self.has(name):
            return LongTable(columns)
        return formats.table_of(self.read(name), f"{self.root}/{name}", cure_of(name), columns)

    def append_line(self, name: str, line: str) -> None:
        """Append a line to a log; on a bucket it is written within 10 s or by ``flush``."""
        self._files.append(name, line.encode() + b"\n")

    def flush(self) -> None:
        """Write the log lines that wait."""
        self._files.flush()

    def close(self) -> None:
        """Write all that waits, and end the threads."""
        self.sync()
        self.flush()
        self._recorded.settle()
        self._background.close()

    def problems(self, names: Iterable[str]) -> list[str]:
        """Return what is wrong with files right below the root, a sentence each."""
        found = []
        for name in names:
            try:
                if self.has(name):
                    self.read(name)
            except DamagedError as error:
                found.append(error.fault)
        return found

    def settled(self, name: str) -> bool:
        """Say whether a file right below the root was written, and something after it."""
        return self._recorded.settled(name)

    @property
    def unchecked(self) -> str | None:
        """Why the files right below the root cannot be checked, None where they can be."""
        if self._recorded.recorded():
            return self._recorded.problem()
        if not self.exists("metrics.parquet"):
            return None
        return (
            f"{self.root} has no checksums, as runs of earlier versions: its files are taken as "
            "they are"
        )

    def download(self, folder: Path) -> None:
        """Copy what a report needs (all but the checkpoints) to a local folder."""
        for name in self._files.files():
            (folder / name).write_bytes(self.read(name))

    def upload(self, folder: Path, names: Iterable[str]) -> None:
        """Copy files or folders of a local folder into the run directory."""
        for name in names:
            for path in sorted([folder / name, *(folder / name).rglob("*")]):
                if path.is_file():
                    self.write_later(path.relative_to(folder).as_posix(), path.read_bytes())
        self.sync()

    def rounds(self) -> list[int]:
        """Return the rounds that have a folder with files of a checkpoint, newest first."""
        folders = self._files.folders("checkpoints")
        numbers = [n.removeprefix("round-") for n in folders if n.startswith("round-")]
        return sorted((int(n) for n in numbers if n.isascii() and n.isdigit()), reverse=True)

    def last_manifest(self, *, readable: bool = False) -> Manifest | None:
        """Return the manifest of the last completed round, None when there is none.

        Args:
            readable: Pass over manifests that are damaged.

        Raises:
            DamagedError: It is damaged.
        """
        for number in self.rounds():
            if self.exists(manifest_name(number)):
                try:
                    return self.manifest(number)
                except DamagedError:
                    if not readable:
                        raise
        return None

    def manifest(self, number: int) -> Manifest:
        """Read a round's manifest.

        Raises:
            DamagedError: It is gone, or not as it was written.
        """
        name = manifest_name(number)
        return Manifest.from_json(self.read_part(name, None), number, f"{self.root}/{name}")

    def commit(self, manifest: Manifest) -> None:
        """Make a round visible, after all its other files are there and every writer synced.

        Raises:
            PhysFedError: Another process has taken the run directory over.
        """
        self.sync()
        self.guard()
        self.write(manifest_name(manifest.round), manifest.to_json())
        self._manifests[manifest.round] = manifest
        self.flush()

    def withdraw(self, numbers: Iterable[int]) -> None:
        """Delete manifests, so that their rounds no longer look completed."""
        self._files.remove(manifest_name(number) for number in numbers)

    def prune(self, manifest: Manifest, keep: int) -> None:
        """Delete what none of the last ``keep`` manifests refers to.

        A client's file that is newer than what the last manifest names stays: its host may have
        trained ahead of the server. The cost is one listing and one reading of each manifest that
        this process did not write.

        Args:
            manifest: The last one.
            keep: How many manifests stay, at least 1.
        """
        found = {
            name: int(name.split("/")[1].removeprefix("round-"))
            for name in self._files.find("checkpoints")
            if name.startswith("checkpoints/round-")
        }
        committed = sorted(
            number
            for name, number in found.items()
            if name.endswith("/state.json") and number <= manifest.round
        )
        self._manifests = self._last(committed, keep)
        needed = {name for kept in self._manifests.values() for name in kept.files()}
        spare = [n for n in found if n not in needed and manifest.supersedes(n, found[n])]
        # Manifests go first: a round must not look completed when its files are gone.
        self._files.remove(name for name in spare if name.endswith("/state.json"))
        self._files.remove(name for name in spare if not name.endswith("/state.json"))

    def _last(self, committed: Sequence[int], keep: int) -> dict[int, Manifest]:
        """Return the newest manifests; one that is damaged is none."""
        found: dict[int, Manifest] = {}
        for number in reversed(committed):
            if len(found) == keep:
                break
            with suppress(DamagedError):
                found[number] = self._manifests.get(number) or self.manifest(number)
        return found

    def free_bytes(self) -> int | None:
        """Return the free space of the disk, None on a bucket."""
        return self._files.free_bytes()


def require_empty(directory: RunDirectory) -> None:
    """Refuse a directory that already holds a run.

    Raises:
        PhysFedError: If it does.
    """
    if directory.exists("experiment.yaml") or directory.rounds():
        raise PhysFedError(
            f"{directory.root} already holds a run: add --resume to go on with it, or choose "
            "another --out"
        )

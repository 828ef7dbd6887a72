"""The run directory: atomic files, tables and checkpoints, in a local folder or a bucket."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.background import BackgroundWrites
from physfed_ray.rundir.bucket_files import BucketFiles
from physfed_ray.rundir.local_files import LocalFiles, local_path
from physfed_ray.rundir.long_table import METRIC_COLUMNS, LongTable

LEARNING_RATES = "learning_rates.json"
"""Beside the runs of a suite: the rates that its trials have chosen."""


@dataclass(frozen=True)
class Manifest:
    """What a completed round consists of; a round exists when its manifest does.

    Attributes:
        round: The completed round; 0 is the start.
        private_rounds: For every client, the round after which its private state stood and whose
            folder holds its file (0: none yet, the initial state). That folder need not have a
            manifest.
        bases: Earlier rounds whose shared parameters are still in use, because clients of an
            asynchronous schedule train on them.
    """

    round: int
    private_rounds: dict[str, int]
    bases: tuple[int, ...] = ()

    def files(self) -> set[str]:
        """Return the names of all files that the round may need."""
        shared = {
            f"{round_name(number)}/{name}.safetensors"
            for number in (self.round, *self.bases)
            for name in ("server", "codebook", "channel")
        }
        private = {client_file(number, client) for client, number in self.private_rounds.items()}
        return shared | private | {_manifest_name(self.round)}

    def supersedes(self, name: str, number: int) -> bool:
        """Say whether a file (also an unfinished one) of a round's folder is older than this."""
        folder, _, file = name.rpartition("/")
        if not folder.endswith("/clients"):
            return number < self.round
        client = file.split(".safetensors")[0]
        return number <= self.private_rounds.get(client, self.round)


class RunDirectory:
    """Files below one root: a local path or any fsspec URL (``s3://``, ``gs://``).

    Every write is whole or not at all. A local disk that refuses one is a ``PhysFedError``; a
    bucket out of reach is waited for (``PHYSFED_BUCKET_RETRY_S`` seconds, 600 by default).

    Args:
        root: The path or URL.

    Raises:
        PhysFedError: If no installed package speaks to such a URL.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        local = local_path(self.root)
        self.local_path: Path | None = local  # None on a bucket
        self._files = BucketFiles(self.root) if local is None else LocalFiles(local)
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

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        self._background.finish(name)
        return self._files.read(name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; it is safe when this returns."""
        self._background.finish(name)
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
    ) -> None:
        """Write tensors as safetensors; ``later`` as in ``write_later``."""
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        write = self.write_later if later else self.write
        write(name, safetensors.torch.save(contiguous))

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """Read a safetensors file."""
        return safetensors.torch.load(self.read(name))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        self.write(name, (json.dumps(value, indent=1) + "\n").encode())

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write NumPy arrays as one ``.npz`` file (no pickled objects)."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        self.write(name, buffer.getvalue())

    def write_table(self, name: str, table: LongTable) -> None:
        """Write a table as a Parquet file."""
        self.write(name, table.to_parquet())

    def read_table(self, name: str, columns: Sequence[str] = METRIC_COLUMNS) -> LongTable:
        """Read a Parquet file; a table of those columns and no rows when it is not there."""
        return LongTable.from_parquet(self.read(name)) if self.exists(name) else LongTable(columns)

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
        self._background.close()

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

    def last_manifest(self) -> Manifest | None:
        """Return the manifest of the last completed round, None when there is none."""
        folders = self._files.folders("checkpoints")
        rounds = [int(n.removeprefix("round-")) for n in folders if n.startswith("round-")]
        for number in sorted(rounds, reverse=True):
            if self.exists(_manifest_name(number)):
                return self._manifest(number)
        return None

    def commit(self, manifest: Manifest) -> None:
        """Make a round visible, after all its other files are there and every writer synced."""
        self.sync()
        self.write_json(_manifest_name(manifest.round), asdict(manifest))
        self._manifests[manifest.round] = manifest
        self.flush()

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
        self._manifests = {number: self._manifest(number) for number in committed[-keep:]}
        needed = {name for kept in self._manifests.values() for name in kept.files()}
        spare = [n for n in found if n not in needed and manifest.supersedes(n, found[n])]
        # Manifests go first: a round must not look completed when its files are gone.
        self._files.remove(name for name in spare if name.endswith("/state.json"))
        self._files.remove(name for name in spare if not name.endswith("/state.json"))

    def _manifest(self, number: int) -> Manifest:
        if number not in self._manifests:
            state = json.loads(self.read(_manifest_name(number)))
            bases = tuple(state.get("bases", ()))
            self._manifests[number] = Manifest(state["round"], state["private_rounds"], bases)
        return self._manifests[number]

    def free_bytes(self) -> int | None:
        """Return the free space of the disk, None on a bucket."""
        return self._files.free_bytes()


def _manifest_name(number: int) -> str:
    return f"{round_name(number)}/state.json"


def round_name(number: int) -> str:
    """Return the folder of a round's checkpoint, below the run directory."""
    return f"checkpoints/round-{number:04d}"


def client_file(number: int, client: str) -> str:
    """Return the file of a client's private state."""
    return f"{round_name(number)}/clients/{client}.safetensors"


def require_empty(directory: RunDirectory) -> None:
    """Refuse a directory that already holds a run.

    Raises:
        PhysFedError: If it does.
    """
    if directory.exists("experiment.yaml"):
        raise PhysFedError(
            f"{directory.root} already holds a run: add --resume to go on with it, or choose "
            "another --out"
        )

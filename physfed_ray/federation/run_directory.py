"""The run directory: atomic files, tables and checkpoints, in a local folder or a bucket."""

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from torch import Tensor

from physfed_ray.errors import PhysFedError
from physfed_ray.federation.bucket_files import BucketFiles
from physfed_ray.federation.local_files import LocalFiles

METRICS_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("client", pa.string()),
        ("split", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)
SLICES_SCHEMA = pa.schema(
    [
        ("client", pa.string()),
        ("split", pa.string()),
        ("patient", pa.string()),
        ("slice", pa.int32()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)


WRITERS = 8  # files that ``write_later`` has under way; bounds its memory as well


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
            for name in ("server", "codebook")
        }
        private = {client_file(number, client) for client, number in self.private_rounds.items()}
        return shared | private | {_manifest_name(self.round)}


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
        local = _local_path(self.root)
        self.local_path: Path | None = local  # None on a bucket
        self._files = BucketFiles(self.root) if local is None else LocalFiles(local)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[str, Future[None]] = {}
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
        self._finish(name)
        return self._files.exists(name)

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        self._finish(name)
        return self._files.read(name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; it is safe when this returns."""
        self._finish(name)
        self._files.write(name, content)
        self._files.sync_folders([name])

    def write_later(self, name: str, content: bytes) -> None:
        """Write a file while the caller goes on; it is safe when ``sync`` returns.

        Several writes are under way at once, so that they share the disk's flushes and the
        bucket's latency. The process that writes also waits for them: on network disks no other
        machine could, so a manifest that is written after every writer's ``sync`` names only files
        that are safe, wherever the writers run.
        """
        self._finish(name)
        if len(self._pending) >= WRITERS:
            self._finish(next(iter(self._pending)))
        self._pool = self._pool or ThreadPoolExecutor(WRITERS, "run-directory")
        self._pending[name] = self._pool.submit(self._files.write, name, content)
        self._unsynced.add(name)

    def sync(self) -> None:
        """Wait until all that was given to ``write_later`` is safe.

        Raises:
            PhysFedError: If one of those writes was refused.
        """
        wait(self._pending.values())
        for name in list(self._pending):
            self._finish(name)
        names, self._unsynced = self._unsynced, set()
        self._files.sync_folders(names)

    def _finish(self, name: str) -> None:
        future = self._pending.pop(name, None)
        if future is not None:
            future.result()

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

    def write_table(self, name: str, rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> None:
        """Write rows as a Parquet file."""
        columns = list(zip(*rows, strict=True)) or [()] * len(schema)
        table = pa.table(
            [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema
        )
        sink = io.BytesIO()
        pq.write_table(table, sink)
        self.write(name, sink.getvalue())

    def read_table(self, name: str) -> list[tuple[Any, ...]]:
        """Read the rows of a Parquet file; none when it is not there."""
        if not self.exists(name):
            return []
        table = pq.read_table(io.BytesIO(self.read(name)))
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

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
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

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
        """Make a round visible, after all its other files are there."""
        self.sync()
        name = _manifest_name(manifest.round)
        # The hosts synced their files before they answered; this is for the folders' names.
        self._files.sync_folders([name, f"{round_name(manifest.round)}/clients/"])
        self.write_json(name, asdict(manifest))
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
        by_round: dict[int, set[str]] = defaultdict(set)
        for name in self._files.find("checkpoints"):
            folder = name.split("/")[1]
            if folder.startswith("round-"):
                by_round[int(folder.removeprefix("round-"))].add(name)
        committed = [
            number
            for number in sorted(by_round)
            if number <= manifest.round and _manifest_name(number) in by_round[number]
        ]
        kept = {number: self._manifest(number) for number in committed[-keep:]}
        self._manifests = kept
        needed: set[str] = set().union(*(m.files() for m in kept.values()))
        spare = sorted(_spare(by_round, manifest, needed))
        manifests = [name for name in spare if name.endswith("/state.json")]
        # Manifests go first: a round must not look completed when its files are gone.
        self._files.remove(manifests)
        self._files.remove(sorted(set(spare) - set(manifests)))

    def _manifest(self, number: int) -> Manifest:
        if number not in self._manifests:
            state = json.loads(self.read(_manifest_name(number)))
            bases = tuple(state.get("bases", ()))
            self._manifests[number] = Manifest(state["round"], state["private_rounds"], bases)
        return self._manifests[number]

    def free_bytes(self) -> int | None:
        """Return the free space of the disk, None on a bucket."""
        return self._files.free_bytes()


def _local_path(root: str) -> Path | None:
    """Return the local path that a root means, None for another file system's URL."""
    protocol, separator, _ = root.partition("://")
    if separator and protocol not in ("file", "local"):
        return None
    return Path(fsspec.core.url_to_fs(root)[1])


def _spare(by_round: Mapping[int, set[str]], manifest: Manifest, needed: set[str]) -> Iterator[str]:
    """Yield the files (also unfinished ones) that may go."""
    for number, names in by_round.items():
        clients = f"{round_name(number)}/clients/"
        for name in names - needed:
            if name.startswith(clients):
                client = name.removeprefix(clients).split(".safetensors")[0]
                superseded = number <= manifest.private_rounds.get(client, manifest.round)
            else:
                superseded = number < manifest.round
            if superseded:
                yield name


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

"""The run directory: atomic files, the metrics table and the checkpoints, local or on a bucket."""

import contextlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True)
class Manifest:
    """What a completed round consists of; a round exists when its manifest does.

    Attributes:
        round: The completed round; 0 is the start.
        private_rounds: For every client, the round whose file holds its private state (0: none
            yet, the initial state).
    """

    round: int
    private_rounds: dict[str, int]


class RunDirectory:
    """Files below one root: a local path or any fsspec URL (``s3://``, ``gs://``)."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._fs, self._base = fsspec.core.url_to_fs(self.root)
        self._local = isinstance(self._fs, fsspec.implementations.local.LocalFileSystem)

    @property
    def local_path(self) -> Path | None:
        """The root as a local path, None on a bucket."""
        return Path(self._base) if self._local else None

    def path(self, name: str) -> str:
        """Return the full path of a file for ``fsspec``."""
        return f"{self._base}/{name}"

    def exists(self, name: str) -> bool:
        """Say whether a file is there."""
        return bool(self._fs.exists(self.path(name)))

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return bytes(self._fs.cat_file(self.path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        target = self.path(name)
        if not self._local:
            self._fs.pipe_file(target, content)  # an object store shows an object when complete
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors as safetensors."""
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        self.write(name, safetensors.torch.save(contiguous))

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
        """Append a line to a log; on a bucket the whole file is written again."""
        if self._local:
            os.makedirs(self._base, exist_ok=True)
            with open(self.path(name), "a", encoding="utf-8") as file:
                file.write(line + "\n")
            return
        before = self.read(name) if self.exists(name) else b""
        self.write(name, before + line.encode() + b"\n")

    def download(self, folder: Path) -> None:
        """Copy what a report needs (all but the checkpoints) to a local folder."""
        for path in self._fs.ls(self._base, detail=False):
            name = str(path).rsplit("/", 1)[-1]
            if self._fs.isfile(path):
                (folder / name).write_bytes(self.read(name))

    def upload(self, folder: Path, names: Iterable[str]) -> None:
        """Copy files or folders of a local folder into the run directory."""
        for name in names:
            for path in sorted([folder / name, *(folder / name).rglob("*")]):
                if path.is_file():
                    self.write(path.relative_to(folder).as_posix(), path.read_bytes())

    def last_manifest(self) -> Manifest | None:
        """Return the manifest of the last completed round, None when there is none."""
        for number in sorted(self._rounds(), reverse=True):
            if self.exists(f"{round_name(number)}/state.json"):
                state = json.loads(self.read(f"{round_name(number)}/state.json"))
                return Manifest(state["round"], state["private_rounds"])
        return None

    def commit(self, manifest: Manifest) -> None:
        """Make a round visible, after all its other files are there."""
        self.write_json(f"{round_name(manifest.round)}/state.json", asdict(manifest))

    def prune(self, manifest: Manifest, keep: int) -> None:
        """Delete what neither the last ``keep`` rounds nor their manifests refer to."""
        rounds = sorted(n for n in self._rounds() if n <= manifest.round)
        needed = {f"{round_name(r)}/clients/{c}" for c, r in manifest.private_rounds.items()}
        for number in rounds[-keep:-1] if keep > 1 else []:
            name = f"{round_name(number)}/state.json"
            if self.exists(name):
                older = json.loads(self.read(name))["private_rounds"]
                needed |= {f"{round_name(r)}/clients/{c}" for c, r in older.items()}
        for number in rounds[:-keep]:
            self._prune_round(number, needed)

    def _prune_round(self, number: int, needed: set[str]) -> None:
        folder = round_name(number)
        kept = 0
        if self._fs.exists(self.path(f"{folder}/clients")):
            for path in self._fs.ls(self.path(f"{folder}/clients"), detail=False):
                client = str(path).rsplit("/", 1)[-1].removesuffix(".safetensors")
                if f"{folder}/clients/{client}" in needed:
                    kept += 1
                else:
                    self._fs.rm(path)
        if not kept:
            self._fs.rm(self.path(folder), recursive=True)
            return
        for name in ("state.json", "server.safetensors", "codebook.safetensors"):
            if self.exists(f"{folder}/{name}"):
                self._fs.rm(self.path(f"{folder}/{name}"))

    def _rounds(self) -> list[int]:
        folder = self.path("checkpoints")
        if not self._fs.exists(folder):
            return []
        names = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in self._fs.ls(folder, False)]
        return [int(n.removeprefix("round-")) for n in names if n.startswith("round-")]

    def free_bytes(self) -> int | None:
        """Return the free space of the disk, None on a bucket."""
        if not self._local:
            return None
        folder = Path(self._base)
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


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

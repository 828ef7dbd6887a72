"""One client's slices in one Arrow file: written atomically, read without a copy."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa

from physfed_ray.errors import PhysFedError

FORMAT = b"physfed_ray.client_data/1"
# No file takes nearly so long to write.
ABANDONED_AFTER_S = 24 * 3600.0
TENSORS = {
    "low": np.float32,
    "full": np.float32,
    "body": np.uint8,
    "embedding": np.float32,
    "embedding_mask": np.uint8,
}


@dataclass(frozen=True)
class ClientData:
    """N slices scanned under one client's protocol; arrays read from a file are memory-mapped.

    Attributes:
        low: Low-dose images, (N, n, n) float32, 0 and 1 are the ends of the HU window.
        full: Full-dose images, same shape and scale.
        body: 1 inside the patient, (N, n, n) uint8.
        embedding: Report embeddings f_t, (N, T, d) float32, not standardised.
        embedding_mask: 1 where a token is real, (N, T) uint8.
        g: Normalised protocol, (7,) float32.
        patient: Pseudonym of each slice's patient.
        slice: Index of each slice among its patient's chosen slices, (N,) int32.
        scale: Factor by which each body was shrunk into the field of view, (N,) float32.
        report: Text from which each embedding was made.
    """

    low: np.ndarray
    full: np.ndarray
    body: np.ndarray
    embedding: np.ndarray
    embedding_mask: np.ndarray
    g: np.ndarray
    patient: list[str]
    slice: np.ndarray
    scale: np.ndarray
    report: list[str]

    def __len__(self) -> int:
        return len(self.low)

    @property
    def image_size(self) -> int:
        """Side n of the images in pixels."""
        return int(self.low.shape[-1])


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends well, and vanishes if not.

    Readers and other writers of the same path see the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what killed writers left under a folder more than a day ago."""
    for temporary in folder.rglob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - temporary.stat().st_mtime > ABANDONED_AFTER_S:
                temporary.unlink()


def write_client_data(path: Path, data: ClientData) -> None:
    """Write one uncompressed record batch of fixed-shape tensor columns, atomically.

    One batch, because only then is a column one contiguous array for the reader.

    Raises:
        PhysFedError: ``data`` has no slices.
    """
    if not len(data):
        raise PhysFedError(f"{path.name} would hold no slices; give this client a patient.")
    columns: dict[str, Any] = {
        name: _tensor_column(np.asarray(getattr(data, name), dtype))
        for name, dtype in TENSORS.items()
    }
    columns["g"] = _tensor_column(np.tile(np.asarray(data.g, np.float32), (len(data), 1)))
    columns["patient"] = pa.array(data.patient, pa.string())
    columns["slice"] = pa.array(np.asarray(data.slice, np.int32))
    columns["scale"] = pa.array(np.asarray(data.scale, np.float32))
    columns["report"] = pa.array(data.report, pa.large_string())
    batch = pa.record_batch(columns).replace_schema_metadata({b"format": FORMAT})
    with (
        atomic_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as writer,
    ):
        writer.write_batch(batch)


def read_client_data(path: Path) -> ClientData:
    """Map a file into memory; its tensor columns are read-only views of the file itself.

    Raises:
        PhysFedError: The file is missing, or is not one that ``write_client_data`` wrote.
    """
    try:
        batch = _only_batch(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise PhysFedError(
            f"{path} cannot be read as prepared data ({type(error).__name__}); "
            "delete it and run `physfed prepare` again."
        ) from error
    tensors = {name: batch.column(name).to_numpy_ndarray() for name in TENSORS}
    return ClientData(
        **tensors,
        g=batch.column("g").to_numpy_ndarray()[0],
        patient=batch.column("patient").to_pylist(),
        slice=batch.column("slice").to_numpy(),
        scale=batch.column("scale").to_numpy(),
        report=batch.column("report").to_pylist(),
    )


def _tensor_column(array: np.ndarray) -> Any:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


def _only_batch(path: Path) -> Any:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    if (reader.schema.metadata or {}).get(b"format") != FORMAT or reader.num_record_batches != 1:
        raise pa.ArrowInvalid("another format")
    return reader.get_batch(0)

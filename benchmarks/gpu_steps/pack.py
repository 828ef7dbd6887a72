"""CT in one file, without DICOM: written where the images are, read where only the file is.

An Arrow file with a record batch for each patient, compressed by zstd. Pixels are whole HU in 16
bits, each as the difference from its left neighbour, the low bytes before the high ones.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from physfed_ray.data.patient import PatientSource, PatientVolume, evenly_spaced
from physfed_ray.errors import PhysFedError

SCHEMA = pa.schema(
    [
        ("patient", pa.string()),
        ("row_mm", pa.float64()),
        ("column_mm", pa.float64()),
        ("position_mm", pa.float64()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("hu", pa.binary()),
    ]
)
LEVEL = 19

Split = Mapping[str, Any]
"""``test`` and ``validation``: patients; ``clients``: patients by client."""


def pack(hu: np.ndarray) -> bytes:
    """Return an image (h, w) of whole HU as bytes that compress well.

    Raises:
        PhysFedError: A pixel is no whole number of 16 bits.
    """
    whole = hu.astype(np.int16)
    if not np.array_equal(whole.astype(hu.dtype), hu):
        raise PhysFedError("an image has pixels that are no whole HU of 16 bits: pack others")
    steps = np.diff(whole, axis=1, prepend=np.int16(0))
    steps[1:, 0] = np.diff(whole[:, 0])
    unsigned = ((steps << 1) ^ (steps >> 15)).view(np.uint16)
    return (unsigned & 255).astype(np.uint8).tobytes() + (unsigned >> 8).astype(np.uint8).tobytes()


def unpack(content: bytes, rows: int, columns: int) -> np.ndarray:
    """Return what ``pack`` was given, (rows, columns) float32."""
    low, high = np.frombuffer(content, np.uint8).reshape(2, rows, columns).astype(np.uint16)
    unsigned = low | (high << 8)
    steps = (unsigned >> 1).view(np.int16) ^ -(unsigned & 1).view(np.int16)
    steps[:, 0] = np.cumsum(steps[:, 0], dtype=np.int16)
    return np.cumsum(steps, axis=1, dtype=np.int16).astype(np.float32)


def write_pack(
    source: PatientSource, path: Path, split: Split, patients: Sequence[str] | None = None
) -> None:
    """Write the patients of a source under the pseudonyms p01, p02, ... in its order.

    Args:
        source: Where they come from.
        path: The file.
        split: Who is who, by the source's own ids; written by pseudonyms.
        patients: Those to write; None for all.
    """
    names = {patient: f"p{number:02d}" for number, patient in enumerate(source.ids(), 1)}
    meta = {"split": json.dumps(_renamed(split, names))}
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=LEVEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(path, SCHEMA.with_metadata(meta), options=options) as writer:
        for patient in patients or source.ids():
            volume = source.load(patient, None)
            rows = [
                {
                    "patient": names[patient],
                    "row_mm": spacing[0],
                    "column_mm": spacing[1],
                    "position_mm": position,
                    "rows": hu.shape[0],
                    "columns": hu.shape[1],
                    "hu": pack(hu),
                }
                for hu, spacing, position in zip(
                    volume.slices, volume.spacings_mm, volume.positions_mm, strict=True
                )
            ]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))


def _renamed(split: Any, names: Mapping[str, str]) -> Any:
    if isinstance(split, Mapping):
        return {key: _renamed(value, names) for key, value in split.items()}
    return [names[patient] for patient in split]


class PackSource:
    """The patients of a packed file, as a source for experiments.

    Args:
        path: The file.

    Attributes:
        split: Who is who.

    Raises:
        PhysFedError: It is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with pa.memory_map(str(path)) as file:
                reader = pa.ipc.open_file(file)
                meta = reader.schema.metadata or {}
                self.split: Split = json.loads(meta[b"split"])
                batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise PhysFedError(
                f"{path} is no packed CT: write one with `python benchmarks/gpu_pack.py`"
            ) from error
        self._patients = {batch["patient"][0].as_py(): batch for batch in batches}

    def ids(self) -> tuple[str, ...]:
        """See ``PatientSource``."""
        return tuple(self._patients)

    def slice_count(self, patient_id: str) -> int:
        """See ``PatientSource``."""
        return len(self._patients[patient_id])

    def load(self, patient_id: str, limit: int | None) -> PatientVolume:
        """See ``PatientSource``."""
        batch = self._patients[patient_id]
        rows = [batch.slice(k, 1).to_pylist()[0] for k in evenly_spaced(len(batch), limit)]
        return PatientVolume(
            patient_id,
            tuple(unpack(row["hu"], row["rows"], row["columns"]) for row in rows),
            tuple((row["row_mm"], row["column_mm"]) for row in rows),
            tuple(row["position_mm"] for row in rows),
        )

    def summary(self) -> dict[str, Any]:
        """See ``PatientSource``."""
        slices = sum(map(len, self._patients.values()))
        return {"kind": "pack", "patients": len(self._patients), "slices": slices}

    def fingerprint(self, patient_id: str) -> str:
        """See ``PatientSource``."""
        return blake2b(f"{self._digest} {patient_id}".encode(), digest_size=16).hexdigest()

    @cached_property
    def _digest(self) -> str:
        return blake2b(self._path.read_bytes(), digest_size=16).hexdigest()

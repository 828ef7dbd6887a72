"""Slices in Arrow files: written atomically, read without a copy."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.patient import Findings
from physfed_ray.data.verified import (
    FURTHER,
    column_sums,
    content_sum,
    damaged,
    open_batch,
    write_batch,
)
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.fields import SCANNED, STANDARD

SCANS_FORMAT = b"physfed_ray.scans/2"
FIELD_FORMAT = b"physfed_ray.field/1"
FORMAT = b"physfed_ray.client_data/1"


@dataclass(frozen=True)
class Scans:
    """N slices of one patient scanned under one client's protocol, not yet described.

    Attributes:
        low: As in ``ClientData``.
        full: As in ``ClientData``.
        body: As in ``ClientData``.
        hu: What the scanner shows, (N, n, n) int16, HU within [-1024, 3071]; for the reporter, who
            is to see more than the network's window.
        patient: Pseudonym of each slice's patient.
        slice: As in ``ClientData``.
        scale: As in ``ClientData``.
        image: Hash of each slice of ``hu``, 32 hex digits.
        findings: What was found when the patient's pixels were read.
    """

    low: np.ndarray
    full: np.ndarray
    body: np.ndarray
    hu: np.ndarray
    patient: list[str]
    slice: np.ndarray
    scale: np.ndarray
    image: list[str]
    findings: Findings = field(default_factory=Findings)

    def __len__(self) -> int:
        return len(self.low)


@dataclass(frozen=True)
class ClientData:
    """N slices scanned under one client's protocol; arrays read from a file are memory-mapped.

    Attributes:
        low: Low-dose images, (N, n, n) float32, 0 and 1 are the ends of the HU window.
        full: Full-dose images, same shape and scale.
        body: 1 inside the patient, (N, n, n) uint8.
        embedding: Report embeddings f_t, (N, T, d) float32, not standardised.
        embedding_mask: 1 where a token is real, (N, T) uint8.
        g: Normalised protocol of each slice, (N, G) float32.
        patient: Pseudonym of each slice's patient.
        slice: Index of each slice among its patient's chosen slices, (N,) int32.
        scale: Factor by which each body was shrunk into the field of view, (N,) float32.
        report: Text from which each embedding was made.
        extra: The other fields that were asked for, by name, (N, ...).
        protocol: How they were scanned, for a client's learned front end; a file does not say it.
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
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    protocol: Protocol | None = None

    def __len__(self) -> int:
        return len(self.low)

    @property
    def image_size(self) -> int:
        """Side n of the images in pixels."""
        return int(self.low.shape[-1])


def write_scans(path: Path, scans: Scans) -> None:
    """Write one uncompressed record batch, atomically."""
    columns = {f.name: _tensor_column(getattr(scans, f.name), f.stored) for f in SCANNED}
    columns |= _slice_columns(scans)
    columns["image"] = pa.array(scans.image, pa.string())
    write_batch(path, columns, SCANS_FORMAT, json.dumps(asdict(scans.findings)).encode())


def read_scans(path: Path) -> Scans:
    """Map a file into memory; its images are read-only views of the file itself.

    Raises:
        PhysFedError: The file is missing, or is not one that ``write_scans`` wrote.
    """
    batch = open_batch(path, SCANS_FORMAT)
    images = {f.name: batch.column(f.name).to_numpy_ndarray() for f in SCANNED}
    return Scans(
        **images,
        **_read_slices(batch),
        image=batch.column("image").to_pylist(),
        findings=Findings(**json.loads(batch.schema.metadata[FURTHER])),
    )


def write_field(path: Path, values: np.ndarray) -> None:
    """Write one field of the slices of a scan, (N, ...), atomically."""
    write_batch(path, {"values": _tensor_column(values, values.dtype)}, FIELD_FORMAT)


def read_field(path: Path) -> np.ndarray:
    """Map one field of the slices of a scan into memory, (N, ...), read-only.

    Raises:
        PhysFedError: The file is missing, or is not one that ``write_field`` wrote.
    """
    values: np.ndarray = open_batch(path, FIELD_FORMAT).column("values").to_numpy_ndarray()
    return values


def write_client_data(path: Path, data: ClientData) -> None:
    """Write one uncompressed record batch of fixed-shape tensor columns, atomically.

    One batch, because only then is a column one contiguous array for the reader.

    Raises:
        PhysFedError: ``data`` has no slices.
    """
    if not len(data):
        raise PhysFedError(f"{path.name} would hold no slices; give this client a patient.")
    columns = {f.name: _tensor_column(getattr(data, f.name), f.stored) for f in STANDARD}
    for name, values in data.extra.items():
        columns.setdefault(name, _tensor_column(values, values.dtype))
    columns["g"] = _tensor_column(data.g, np.float32)
    columns |= _slice_columns(data)
    columns["report"] = pa.array(data.report, pa.large_string())
    write_batch(path, columns, FORMAT)


def read_client_data(path: Path, extra: Iterable[str] = ()) -> ClientData:
    """Map a file into memory; its tensor columns are read-only views of the file itself.

    Args:
        path: A file that ``write_client_data`` wrote.
        extra: Fields that not every batch has, to be there in ``extra``.

    Raises:
        PhysFedError: The file is missing, is of another kind, or lacks a field.
    """
    batch = open_batch(path, FORMAT)
    missing = [name for name in extra if name not in batch.schema.names]
    if missing:
        raise PhysFedError(
            f"{path} was prepared without the field '{missing[0]}'; prepare the data for a method "
            "or a backbone that declares it"
        )
    return ClientData(
        **{f.name: batch.column(f.name).to_numpy_ndarray() for f in STANDARD},
        **_read_slices(batch),
        g=batch.column("g").to_numpy_ndarray(),
        report=batch.column("report").to_pylist(),
        extra={name: batch.column(name).to_numpy_ndarray() for name in extra},
    )


IMAGES = (*(f.name for f in SCANNED if f in STANDARD), "slice")
"""Columns that make two data sets one: what networks see, and neither pseudonyms nor reports."""


def client_data_sums(path: Path) -> tuple[str, str]:
    """Return the checksums of a client's file: of all that it holds, and of its images.

    Raises:
        DamagedError: The file is missing, of another kind, or not as it was written.
    """
    columns = column_sums(path, FORMAT)
    return content_sum(columns), content_sum({name: columns[name] for name in IMAGES})


def damaged_scans(paths: Iterable[Path]) -> list[DamagedError]:
    """Return what is wrong with files of scans, and of single fields of them."""
    return damaged((p, SCANS_FORMAT if p.name.count(".") == 1 else FIELD_FORMAT) for p in paths)


def concatenate(parts: Sequence[ClientData]) -> ClientData:
    """Return the slices of several clients as one, in memory, each with its own g."""

    def joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(arrays))

    first = parts[0]
    arrays: dict[str, Any] = {f.name: joined(getattr(p, f.name) for p in parts) for f in STANDARD}
    return ClientData(
        **arrays,
        g=joined(part.g for part in parts),
        patient=[patient for part in parts for patient in part.patient],
        slice=joined(part.slice for part in parts),
        scale=joined(part.scale for part in parts),
        report=[report for part in parts for report in part.report],
        extra={name: joined(part.extra[name] for part in parts) for name in first.extra},
    )


def _slice_columns(data: Scans | ClientData) -> dict[str, Any]:
    return {
        "patient": pa.array(data.patient, pa.string()),
        "slice": pa.array(np.asarray(data.slice, np.int32)),
        "scale": pa.array(np.asarray(data.scale, np.float32)),
    }


def _read_slices(batch: Any) -> dict[str, Any]:
    return {
        "patient": batch.column("patient").to_pylist(),
        "slice": np.from_dlpack(batch.column("slice")),  # to_numpy() imports pandas
        "scale": np.from_dlpack(batch.column("scale")),
    }


def _tensor_column(array: np.ndarray, dtype: Any) -> Any:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array, dtype))

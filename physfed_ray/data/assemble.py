"""Shards and descriptions become one file per client and split, and training files statistics."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from physfed_ray.data.store import (
    ClientData,
    Scans,
    read_client_data,
    read_field,
    read_scans,
    write_client_data,
)
from physfed_ray.fields import FULL, LOW, SCANNED, STANDARD
from physfed_ray.reports.cache import DescriptionCache
from physfed_ray.rundir.model import Statistics

# Far below the spread of sentence embeddings (about 3e-3 a dimension): it only keeps a dimension
# that never changes from being divided by zero.
EMBEDDING_STD_FLOOR = 1e-4


def assemble(
    shards: Sequence[Path],
    g: np.ndarray,
    descriptions: DescriptionCache,
    path: Path,
    fields: Mapping[str, Sequence[Path]] | None = None,
    images: Sequence[Path] | None = None,
    *,
    labels: bool = True,
) -> list[int]:
    """Join the shards of one client and split into one file, atomically.

    The joined columns lie in a temporary file until they are written, so that a client may be
    larger than the memory.

    Args:
        shards: Files of scans.
        g: The normalised protocol of each shard, (shards, G).
        descriptions: Holds the reports and embeddings of all their slices.
        path: The file to write.
        fields: Files of the fields that not every client has, one a shard, by field.
        images: Files of what a front end makes from the sinograms, one a shard, which then is the
            low-dose image; None for the scanner's own.
        labels: Whether the full dose is there; otherwise it is not a number, so that a result that
            depends on it shows.

    Returns:
        The number of slices in each shard.
    """
    parts = [read_scans(shard) for shard in shards]
    described = descriptions.get([image for part in parts for image in part.image])
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = _images(parts, images, labels=labels)
    joined: dict[str, Any] = {name: _join(found, path.parent) for name, found in columns.items()}
    data = ClientData(
        **joined,
        embedding=described.embedding,
        embedding_mask=described.mask,
        g=np.repeat(g, [len(part) for part in parts], axis=0),
        patient=[patient for part in parts for patient in part.patient],
        slice=np.concatenate([part.slice for part in parts]),
        scale=np.concatenate([part.scale for part in parts]),
        report=described.report,
        extra={
            name: _join([read_field(file) for file in files], path.parent)
            for name, files in (fields or {}).items()
        },
    )
    write_client_data(path, data)
    return [len(part) for part in parts]


def _images(
    parts: Sequence[Scans], images: Sequence[Path] | None, *, labels: bool
) -> dict[str, list[np.ndarray]]:
    """Return the standard images of each shard by field; see ``assemble``."""
    names = [field.name for field in SCANNED if field in STANDARD]
    columns = {name: [getattr(part, name) for part in parts] for name in names}
    if images is not None:
        columns[LOW.name] = [read_field(file) for file in images]
    if not labels:
        nothing, full = np.float32(np.nan), columns[FULL.name]
        columns[FULL.name] = [np.broadcast_to(nothing, part.shape) for part in full]
    return columns


def _join(parts: Sequence[np.ndarray], scratch: Path) -> np.ndarray:
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    with tempfile.TemporaryFile(dir=scratch) as file:
        joined = np.memmap(file, np.result_type(*parts), shape=shape)
    np.concatenate(parts, out=joined)
    return joined


def statistics(training_files: Sequence[Path]) -> Statistics:
    """Average the clients' means and variances, each client weighing the same.

    In a federation of hospitals, each client would send these few numbers of its own data.
    """
    moments = [_moments(read_client_data(path)) for path in training_files]
    input_mean, input_variance, mean, variance = (
        np.mean(values, axis=0) for values in zip(*moments, strict=True)
    )
    tokens, dim = read_client_data(training_files[0]).embedding.shape[1:]
    return Statistics(
        input_mean=float(input_mean),
        input_std=float(np.sqrt(input_variance)),
        embedding_mean=mean.tolist(),
        embedding_std=np.maximum(np.sqrt(variance), EMBEDDING_STD_FLOOR).tolist(),
        tokens=tokens,
        dim=dim,
    )


def _moments(data: ClientData) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Return mean and variance of the pixels, and of each dimension over the real tokens."""
    mean = float(np.mean([image.mean(dtype=np.float64) for image in data.low]))
    variance = float(np.mean([np.square(image - np.float64(mean)).mean() for image in data.low]))
    tokens = data.embedding[data.embedding_mask.astype(bool)].astype(np.float64)
    return mean, variance, tokens.mean(axis=0), tokens.var(axis=0)

"""Reports and embeddings that were made before, by the hash of all that they depend on.

A report depends on the image and the reporter's version (code, model revision, prompt, generation
settings), an embedding on the text and the encoder's version. So another encoder leaves the
reports as they are, and another prompt makes everything anew.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from physfed_ray.atomic import atomic_file
from physfed_ray.checksum import SEAL, column_checksums
from physfed_ray.reports.base import Described
from physfed_ray.reports.describer import Describer

LOG = logging.getLogger(__name__)


class ArrowCache:
    """Rows by key, in small Arrow files that are written once, whole, and never changed.

    Several processes may read and write the same folder; the same key written twice is harmless.

    Args:
        folder: Where the files lie; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: set[str] = set()
        self._rows: dict[str, tuple[Any, int]] = {}

    def known(self, keys: Iterable[str]) -> set[str]:
        """Return those of the keys that are there, others' new files included."""
        self._look()
        return {key for key in keys if key in self._rows}

    def add(self, keys: Sequence[str], columns: Mapping[str, Any]) -> None:
        """Write rows as one file.

        Args:
            keys: Key of each row.
            columns: Arrow arrays of the same length.
        """
        name = blake2b("".join(keys).encode(), digest_size=16).hexdigest()
        batch = pa.record_batch({"key": pa.array(keys, pa.string()), **columns})
        own = json.dumps(column_checksums(batch)).encode()
        batch = batch.replace_schema_metadata({SEAL.encode(): own})
        with (
            atomic_file(self._folder / f"{name}.arrow") as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        self._enter(f"{name}.arrow", batch)

    def rows(self, keys: Iterable[str]) -> list[tuple[Any, int]]:
        """Return the record batch and the row of each key, all of which must be known."""
        return [self._rows[key] for key in keys]

    def _look(self) -> None:
        if not self._folder.is_dir():
            return
        for path in self._folder.glob("*.arrow"):
            if path.name not in self._files and path.is_file():
                try:
                    batch = _opened(path)
                except DAMAGED:
                    LOG.warning("%s is damaged: what it held is made again", path)
                    path.unlink(missing_ok=True)
                    continue
                self._enter(path.name, batch)

    def _enter(self, name: str, batch: Any) -> None:
        self._files.add(name)
        for row, key in enumerate(batch.column("key").to_pylist()):
            self._rows[key] = (batch, row)


DAMAGED = (OSError, ValueError, KeyError, TypeError, MemoryError, pa.ArrowException)


def _opened(path: Path) -> Any:
    """Map a file of rows, and compare it with its checksums; earlier versions wrote none."""
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    batch.validate(full=True)
    own = (batch.schema.metadata or {}).get(SEAL.encode())
    if own is not None and json.loads(own) != column_checksums(batch):
        raise pa.ArrowInvalid("not as it was written")
    if not {*batch.schema.names} & {"report", "embedding"}:
        raise pa.ArrowInvalid("no rows of this cache")
    return batch


class DescriptionCache:
    """What a reporter and an encoder have made.

    Args:
        folder: The cache's folder.
        describer: The reporter and the encoder.
    """

    def __init__(self, folder: Path, describer: Describer) -> None:
        self._reports = ArrowCache(folder / "reports" / _hash(describer.reporter.version))
        self._vectors = ArrowCache(folder / "embeddings" / _hash(describer.encoder.version))

    def missing(self, images: Iterable[str]) -> dict[str, str | None]:
        """Return the images that lack a report or an embedding.

        Args:
            images: Hashes of images.

        Returns:
            Each such image's report, None where that is missing too.
        """
        images = list(dict.fromkeys(images))
        texts = self._texts(self._reports.known(images))
        ready = self._vectors.known({_hash(text) for text in texts.values()})
        return {
            image: texts.get(image)
            for image in images
            if image not in texts or _hash(texts[image]) not in ready
        }

    def add(self, images: Sequence[str], described: Described) -> None:
        """Keep the descriptions of images.

        Args:
            images: Hashes of B images.
            described: Their reports and embeddings.
        """
        self._reports.add(images, {"report": pa.array(described.report, pa.large_string())})
        columns = {
            "embedding": pa.FixedShapeTensorArray.from_numpy_ndarray(
                np.ascontiguousarray(described.embedding, np.float32)
            ),
            "mask": pa.FixedShapeTensorArray.from_numpy_ndarray(
                np.ascontiguousarray(described.mask, np.uint8)
            ),
        }
        self._vectors.add([_hash(text) for text in described.report], columns)

    def get(self, images: Sequence[str]) -> Described:
        """Return the descriptions of images, none of which may be missing."""
        texts = self._texts(images)
        reports = [texts[image] for image in images]
        rows = self._vectors.rows(_hash(text) for text in reports)
        embedding, mask = (
            np.concatenate(
                [batch.column(name).slice(row, 1).to_numpy_ndarray() for batch, row in rows]
            )
            for name in ("embedding", "mask")
        )
        return Described(reports, embedding, mask)

    def _texts(self, images: Iterable[str]) -> dict[str, str]:
        images = list(images)
        return {
            image: batch.column("report")[row].as_py()
            for image, (batch, row) in zip(images, self._reports.rows(images), strict=True)
        }


def _hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()

"""From a file's bytes to its content; bytes that make none are a damaged file, never a traceback.

Checksums find almost all damage before. This is for files of earlier versions, which have none.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import safetensors
import safetensors.torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from physfed_ray.errors import DamagedError
from physfed_ray.rundir.long_table import METRIC_COLUMNS, SLICE_COLUMNS, LongTable

T = TypeVar("T")
NAMES = {"method", *METRIC_COLUMNS, *SLICE_COLUMNS}
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    KeyError,
    IndexError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    pa.ArrowException,
    safetensors.SafetensorError,
    yaml.YAMLError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read(parse: Callable[[bytes], T], content: bytes, where: str, cure: str) -> T:
    try:
        return parse(content)
    except UNREADABLE as error:
        what = f"is damaged ({type(error).__name__} when it is read)"
        raise DamagedError(where, cure, what) from None


def json_of(content: bytes, where: str, cure: str) -> Any:
    """Return what a JSON file holds.

    Raises:
        DamagedError: It cannot be read.
    """
    return _read(json.loads, content, where, cure)


def yaml_of(content: bytes, where: str, cure: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        DamagedError: It cannot be read, or holds no mapping.
    """

    def parse(content: bytes) -> dict[str, Any]:
        value = yaml.safe_load(content)
        if not isinstance(value, dict):
            raise TypeError("no mapping")
        return value

    return _read(parse, content, where, cure)


def table_of(content: bytes, where: str, cure: str, columns: Sequence[str]) -> LongTable:
    """Return the table that a Parquet file holds.

    Args:
        content: The file's bytes.
        where: Its name, for the message.
        cure: What a reader of the message can do.
        columns: Those that it has at least.

    Raises:
        DamagedError: It cannot be read.
    """

    def parse(content: bytes) -> LongTable:
        table = LongTable.from_parquet(content)
        if table.names[-1:] != ("value",) or not set(columns) <= set(table.names) <= NAMES:
            raise ValueError("no table of a run")
        return table

    return _read(parse, content, where, cure)


def tensors_of(content: bytes, where: str, cure: str) -> dict[str, Tensor]:
    """Return the tensors that a safetensors file holds.

    Raises:
        DamagedError: It cannot be read.
    """
    return _read(safetensors.torch.load, content, where, cure)


def arrays_of(content: bytes, where: str, cure: str) -> dict[str, NDArray[Any]]:
    """Return the arrays that an ``.npz`` file holds.

    Raises:
        DamagedError: It cannot be read.
    """

    def parse(content: bytes) -> dict[str, NDArray[Any]]:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    return _read(parse, content, where, cure)

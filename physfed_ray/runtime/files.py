"""Files that a host's node lacks, sent from the driver through Ray's object store.

Prepared files need not lie on a folder that all nodes share: a host that has just started is asked
which files it does not see, and gets those. ``missing``, ``receive`` and ``sees`` run in the host's
process, ``ship`` and ``without_run_directory`` in the driver's. What a host reads while it starts,
the assets, is lent to it in its arguments.
"""

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import ray

from physfed_ray.assets.store import look_in
from physfed_ray.cache import cache_folder
from physfed_ray.errors import PhysFedError

# Large enough for the network's full speed, small enough that a few fit any object store.
CHUNK_BYTES = 16 * 2**20
# The next chunk is on its way while the last one is written.
CHUNKS_IN_FLIGHT = 2


def ship(actor: Any, paths: Iterable[Path]) -> int:
    """Send an actor the files that its node does not have, a few chunks at a time.

    Args:
        actor: Handle of a Ray actor with methods ``missing`` and ``receive`` that forward to the
            functions of this module.
        paths: Absolute paths of files on the driver's node.

    Returns:
        How many bytes were sent: 0 where the actor sees all files.

    Raises:
        PhysFedError: A file is gone here, or the actor's node cannot store it.
        ray.exceptions.RayActorError: The actor died.
    """
    paths = list(dict.fromkeys(paths))
    sent = 0
    try:
        sizes = {path: path.stat().st_size for path in paths}
        in_flight: deque[Any] = deque()
        for path in ray.get(actor.missing.remote(sizes)):
            for start in range(0, sizes[path], CHUNK_BYTES):
                if len(in_flight) == CHUNKS_IN_FLIGHT:
                    ray.get(in_flight.popleft())
                chunk = ray.put(np.fromfile(path, np.uint8, CHUNK_BYTES, offset=start))
                in_flight.append(actor.receive.remote(path, chunk, start, sizes[path]))
            sent += sizes[path]
        while in_flight:
            ray.get(in_flight.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, PhysFedError) else error from None
    except FileNotFoundError as error:
        raise PhysFedError(f"{error.filename} is gone; run `physfed prepare` again.") from error
    return sent


def missing(sizes: Mapping[Path, int]) -> list[Path]:
    """Return the files that this node lacks, or has with another size.

    Args:
        sizes: Absolute path of each file on the driver's node, and its bytes.
    """
    return [path for path, size in sizes.items() if _size(locate(path)) != size]


def receive(path: Path, chunk: np.ndarray, start: int, size: int) -> None:
    """Write one chunk of a file; with its last chunk the file appears, whole.

    Args:
        path: Absolute path of the file on the driver's node.
        chunk: The next bytes, (n,) uint8.
        start: Where they begin; the chunks of a file come in order.
        size: Bytes of the whole file.

    Raises:
        PhysFedError: This node has no room, or no folder that can be written.
    """
    target = path if can_write(path.parent) else _received(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.write(chunk.data)
            if start + len(chunk) < size:
                return
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise PhysFedError(
            f"node {os.uname().nodename} cannot store prepared files in {target.parent} "
            f"({error.strerror}); make room there, or set PHYSFED_CACHE to another folder."
        ) from error


def locate(path: Path) -> Path:
    """Return where this node keeps a file of the driver's node: at the same path, if it can."""
    received = _received(path)
    return received if received.is_file() else path


Lent = Sequence[tuple[Path, Sequence[Any]]]
"""Files of the driver's node, each with a handle of its bytes in a list."""


def lend(paths: Iterable[Path]) -> Lent:
    """Put small files in the object store, for processes that read them while they start.

    Args:
        paths: Absolute paths of files on the driver's node.
    """
    return [(path, [ray.put(np.fromfile(path, np.uint8))]) for path in dict.fromkeys(paths)]


def borrow(lent: Lent) -> None:
    """Store the assets that this node lacks, and let this process find all of them.

    Raises:
        PhysFedError: This node cannot store them.
    """
    for path, (handle,) in lent:
        if not locate(path).is_file():
            content: Any = ray.get(handle)
            receive(path, content, 0, len(content))
        look_in(locate(path).parent)


def can_write(folder: Path) -> bool:
    """Create a folder if it is not there, and say whether it takes files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def without_run_directory(root: Path, actors: Sequence[Any]) -> list[int]:
    """Return which actors do not see the same run directory as the driver.

    Args:
        root: A local folder; it is created if it is not there.
        actors: Handles of Ray actors with a method ``sees`` that forwards to ``sees``.

    Returns:
        Indices into ``actors``; empty if the folder is shared, or all are on the driver's node.

    Raises:
        PhysFedError: The folder cannot be written here.
        ray.exceptions.RayActorError: An actor died.
    """
    token = root.absolute() / f".seen-{uuid4().hex}"
    try:
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        raise PhysFedError(
            f"the run directory {root} cannot be written ({error.strerror}); choose another --out."
        ) from error
    try:
        seen = ray.get([actor.sees.remote(token) for actor in actors])
    finally:
        token.unlink(missing_ok=True)
    return [index for index, there in enumerate(seen) if not there]


def sees(path: Path) -> bool:
    """Say whether this process sees a file."""
    return path.is_file()


def _received(path: Path) -> Path:
    """Return where a file lies whose own folder this node cannot create."""
    folder = blake2b(str(path.parent).encode(), digest_size=16).hexdigest()
    return cache_folder(None) / "received" / folder / path.name


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None

"""The folder of denoised series: whose it is, what it holds, and how a second call goes on."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from physfed_ray.atomic import atomic_file
from physfed_ray.data.dicom.listing import folder_of
from physfed_ray.errors import PhysFedError

RECORD = "denoised.json"
VIEWER = "viewer.html"
_LOCK = ".lock"
DECIDES = ("format", "model", "choice", "protocol", "rule", "batch", "threads", "device")
"""Keys of the record that a second call must share with the first."""


def check_places(source: Path, out: Path) -> None:
    """Refuse an output folder that the input lies in, or that lies in the input.

    Raises:
        PhysFedError: They do, or the output is a file or holds something else.
    """
    folder = folder_of(source).resolve()
    folder = folder if folder.is_dir() else folder.parent
    there = out.resolve()
    if there == folder or folder in there.parents:
        raise PhysFedError(
            f"OUT = {out} lies in the folder that is read, and would be read with it the next "
            "time: choose a folder outside of it"
        )
    if there in folder.parents:
        raise PhysFedError(f"OUT = {out} holds the folder that is read: choose a new folder")
    if out.exists() and not out.is_dir():
        raise PhysFedError(f"OUT = {out} is a file: choose a new folder")
    if out.is_dir() and not (out / RECORD).is_file():
        others = [path.name for path in out.iterdir() if path.name != _LOCK]
        if others:
            raise PhysFedError(
                f"OUT = {out} holds something else (no {RECORD}): choose a new folder"
            )


def read_record(out: Path) -> dict[str, Any] | None:
    """Return what an earlier call wrote about a folder, None where there was none.

    Raises:
        PhysFedError: It cannot be read.
    """
    path = out / RECORD
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise PhysFedError(f"{path} is damaged: choose a new folder for OUT")
    return found


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write what a folder holds, whole or not at all.

    Raises:
        PhysFedError: The disk refuses.
    """
    try:
        with atomic_file(out / RECORD) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise PhysFedError(
            f"OUT = {out} cannot be written to ({error.strerror or error}): choose another folder"
        ) from error


def check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with another model, or with series that have changed.

    Raises:
        PhysFedError: Something is not as it was.
    """
    for key in DECIDES:
        if before.get(key) != now.get(key):
            raise PhysFedError(
                f"{out} was begun with {_difference(key, before.get(key), now.get(key))}: give the "
                "same command, or choose a new folder for OUT"
            )
    known = before.get("series", {})
    for name, series in now["series"].items():
        if name in known and known[name]["images"] != series["images"]:
            raise PhysFedError(
                f"the images of {name} are not those that {out} was begun with: choose a new "
                "folder for OUT"
            )


def _difference(key: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        inner = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        return f"another {key} ({inner} {before.get(inner)!r}, now {now.get(inner)!r})"
    return f"another {key} ({before!r}, now {now!r})"


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold a folder for this process, and clear away what a killed one left half written.

    Raises:
        PhysFedError: Another process holds it, or it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / _LOCK).open("w")
    except OSError as error:
        raise PhysFedError(
            f"OUT = {out} cannot be written to ({error.strerror or error}): choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PhysFedError(f"another process is writing to OUT = {out}: wait for it") from None
        for temporary in (*out.glob(".*.tmp"), *out.glob("series-*/.*.tmp")):
            temporary.unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):
                (out / _LOCK).unlink()

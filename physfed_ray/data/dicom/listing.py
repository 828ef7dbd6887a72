"""Which files lie under a folder: links that lead out of it and folders that do not open are told.

A link may lead anywhere: to the files of other patients, to another disk, into ``/proc``. What is
asked for is one folder, so only what lies in it is read, and each file once.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pydicom

LINK_OUT = "link out of the folder"
UNREADABLE_FOLDER = "unreadable folder"


@dataclass(frozen=True)
class Listing:
    """What lies under a folder.

    Attributes:
        files: Every regular file, sorted, each once; also links that lead nowhere.
        skipped: What was not looked into, sorted, by reason.
    """

    files: tuple[Path, ...]
    skipped: Mapping[str, tuple[Path, ...]]


def folder_of(root: Path) -> Path:
    """Return the folder to read: the one in which a DICOMDIR lies, if that is what was given.

    A folder may be called DICOMDIR as well; it is then read as any other.
    """
    return root.parent if root.name.upper() == "DICOMDIR" and root.is_file() else root


def list_folder(root: Path) -> Listing:
    """List a folder and all below it; what a link inside it leads to is listed in its own place."""
    if root.is_file():
        return Listing((root,), {})
    real_root = os.path.realpath(root)
    files: list[Path] = []
    skipped: dict[str, list[Path]] = defaultdict(list)
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError:
            skipped[UNREADABLE_FOLDER].append(folder)
            continue
        for entry in found:
            path = Path(entry.path)
            if _is_link(entry):
                if not _is_inside(os.path.realpath(path), real_root):
                    skipped[LINK_OUT].append(path)
                elif not os.path.exists(path):
                    files.append(path)  # Leads nowhere: to be counted among what does not open.
            elif _is_folder(entry):
                waiting.append(path)
            elif _is_regular(path):
                files.append(path)
    return Listing(
        tuple(sorted(files)), {why: tuple(sorted(paths)) for why, paths in sorted(skipped.items())}
    )


def missing_from_index(index: Path, files: Iterable[Path]) -> int:
    """Return how many files a DICOMDIR lists that are not there (case is ignored, as on a CD).

    The folder is read whole, so a broken index costs nothing but this count: it is then 0.

    Args:
        index: The DICOMDIR.
        files: All files of the folder that is read.
    """
    there = {os.path.relpath(path, index.parent).lower() for path in files}
    # Broken values raise all kinds of errors.
    try:
        return sum(os.path.join(*name).lower() not in there for name in _listed(index))
    except Exception:
        return 0


def _listed(index: Path) -> Iterator[list[str]]:
    for record in pydicom.dcmread(index).get("DirectoryRecordSequence") or []:
        name = record.get("ReferencedFileID")
        if name:
            yield [name] if isinstance(name, str) else list(name)


def _is_inside(real: str, real_root: str) -> bool:
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


def _is_link(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_symlink()
    except OSError:
        return False


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_regular(path: Path) -> bool:
    """Reading a pipe or a device would wait for ever; what cannot be asked stays, to be counted."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True

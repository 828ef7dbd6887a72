"""What can be wrong with a folder of DICOM files: links, pipes, names, indices, copies."""

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.mutators import damage

A_FOLDER = "a folder for a file"
Disturb = Callable[[random.Random, Path, Path, Path, bytes], None]


def _index(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    (root / "DICOMDIR").write_bytes(index if rng.random() < 0.3 else damage(rng, index, []))


def _index_folder(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    (root / "DICOMDIR").mkdir()
    (root / "DICOMDIR" / "empty").touch()


def _link_out(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    where = rng.choice([outside, outside / "x.dcm", Path("/proc/self"), Path("/dev/zero")])
    (root / "link").symlink_to(where)


def _loop(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    (file.parent / "loop").symlink_to(rng.choice([root, file.parent, Path("loop")]))


def _link_in(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    (root / "again").symlink_to(rng.choice([file, file.parent]))


def _pipe(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    os.mkfifo(file.parent / "pipe.dcm")


def _deep(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    deep = root.joinpath(*["deep"] * rng.choice([10, 100, 300]))
    deep.mkdir(parents=True)
    file.rename(deep / "file")


def _names(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    odd = [
        "a" * 255,
        "new\nline",
        "\udcff",
        " ",
        "%s",
        ".hidden",
        "-rf",
        "漢字.dcm",
        "x.zip",
        "[0]",
    ]
    file.rename(file.with_name(rng.choice(odd)))


def _copies(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    copy = root / rng.choice(["copy", "A/zz", "0"])
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(file.read_bytes())


def _clutter(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    for name in ("README.txt", ".DS_Store", "Thumbs.db", "empty", "archive.zip"):
        (file.parent / name).write_bytes(rng.randbytes(rng.choice([0, 1, 200, 5000])))


def _gone(rng: random.Random, root: Path, file: Path, outside: Path, index: bytes) -> None:
    file.unlink()
    file.mkdir()


DISTURBANCES: dict[str, Disturb] = {
    "index": _index, "a folder called DICOMDIR": _index_folder, "link out": _link_out,
    "loop": _loop, "link in": _link_in, "pipe": _pipe, "deep": _deep, "odd name": _names,
    "copies": _copies, "clutter": _clutter, A_FOLDER: _gone,
}  # fmt: skip

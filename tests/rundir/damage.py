"""What befalls files: they are cut off, overwritten, exchanged, lost."""

from collections.abc import Callable
from pathlib import Path


def truncate(path: Path) -> None:
    """Cut a file off in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    """Leave nothing but the name."""
    path.write_bytes(b"")


def zero(path: Path) -> None:
    """Overwrite the half in the middle with zeros."""
    content = bytearray(path.read_bytes())
    first, end = len(content) // 4, len(content) * 3 // 4
    content[first:end] = bytes(end - first)
    path.write_bytes(content)


def flip(path: Path, position: float = 0.6, bit: int = 0) -> None:
    """Turn one bit round."""
    content = bytearray(path.read_bytes())
    content[min(len(content) - 1, int(position * len(content)))] ^= 1 << bit
    path.write_bytes(content)


def delete(path: Path) -> None:
    """Lose a file."""
    path.unlink()


KINDS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "empty": empty,
    "zeroed": zero,
    "flipped": flip,
    "deleted": delete,
}

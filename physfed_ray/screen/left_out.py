"""Files that were left out, for the user's eyes: how many for each reason, and the first few."""

from collections.abc import Iterable
from pathlib import Path

FIRST = 5


def print_left_out(files: Iterable[tuple[str, Path]]) -> None:
    """Print what was left out and why.

    Args:
        files: Reason and path of each.
    """
    by_reason: dict[str, list[Path]] = {}
    for reason, path in files:
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        for path in paths[:FIRST]:
            print(f"left out ({reason}): {path}")
        if len(paths) > FIRST:
            print(f"left out ({reason}): and {len(paths) - FIRST:,} more files")

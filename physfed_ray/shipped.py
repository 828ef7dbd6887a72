"""The experiments that come with the package, named without a path: ``physfed run quickstart``."""

from pathlib import Path

FOLDER = Path(__file__).parent / "experiment" / "shipped"
"""Holds links to ``experiments/`` in a checkout, and the files themselves once installed."""


def shipped() -> dict[str, Path]:
    """Return the file of every shipped experiment, by its name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml")) if file.exists()}


def found(experiment: Path | str) -> Path:
    """Return the file that a path names, or the shipped experiment of that name.

    A file of yours goes first, and so does any path with a folder or an ending in it.
    """
    path = Path(experiment)
    if path.suffix or len(path.parts) != 1 or path.is_file():
        return path
    return shipped().get(path.name, path)

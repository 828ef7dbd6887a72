"""Assets in a run directory, which needs nothing beside it when its model is used elsewhere."""

from collections.abc import Iterable

from physfed_ray.assets.store import ENDING, assets_folder, find_asset, look_in, read_asset
from physfed_ray.atomic import atomic_file
from physfed_ray.rundir.run_directory import RunDirectory

FOLDER = "assets"


def keep_assets(directory: RunDirectory, references: Iterable[str]) -> None:
    """Copy assets into a run directory, where it lacks them.

    Args:
        directory: The run directory.
        references: Names or paths.
    """
    for reference in references:
        asset = read_asset(reference)
        if not directory.exists(name := f"{FOLDER}/{asset.path.name}"):
            directory.write(name, asset.path.read_bytes())


def know_assets(directory: RunDirectory, names: Iterable[str]) -> None:
    """Let this process find the assets of a run directory; those of a bucket are copied.

    Args:
        directory: The run directory.
        names: Of the assets.
    """
    if directory.local_path is not None:
        look_in(directory.local_path / FOLDER)
        return
    for name in names:
        kept = f"{FOLDER}/{name}{ENDING}"
        if not find_asset(name).is_file() and directory.exists(kept):
            with atomic_file(assets_folder() / f"{name}{ENDING}") as temporary:
                temporary.write_bytes(directory.read(kept))

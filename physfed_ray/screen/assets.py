"""What the command line prints of assets: one that was just made, or all of a folder."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from physfed_ray.assets.store import Asset, all_assets, assets_folder
from physfed_ray.words import byte_size


def print_pretrained(asset: Asset, out: str, console: Console | None = None) -> None:
    """Print an asset's name, its scores and its page."""
    lines = [f"asset: {asset.name}", *_scores(asset)]
    if leak := asset.about.data.get("leak"):
        lines.append(f"shared: {leak}")
    lines += [f"file: {asset.path}", f"page: {out.rstrip('/')}/report.html"]
    _print(lines, console)


def print_assets(folder: Path | None = None, console: Console | None = None) -> None:
    """Print every asset of a folder: its name, its data, its scores."""
    assets = all_assets(folder)
    if not assets:
        where = folder or assets_folder()
        _print([f"no assets in {where}; `physfed pretrain FILE.yaml` makes one"], console)
    for asset in assets:
        about = asset.about
        size = byte_size(asset.path.stat().st_size)
        low, high = about.window_hu
        _print(
            [
                f"{asset.name}: {about.recipe}, {about.image_size} pixels, {low:g} to {high:g} HU, "
                f"{size}; {about.data.get('whose', 'unknown data')}"
                + (" (private images)" if about.data.get("leak") else ""),
                *(f"  {line}" for line in _scores(asset)),
            ],
            console,
        )


def _scores(asset: Asset) -> list[str]:
    found = ", ".join(f"{name} {value:.4g}" for name, value in asset.about.scores.items())
    return [f"held-out patients: {found}"] if found else []


def _print(lines: list[str], console: Console | None) -> None:
    console = console or Console(highlight=False)
    for line in lines:
        console.print(Text(line), soft_wrap=True)

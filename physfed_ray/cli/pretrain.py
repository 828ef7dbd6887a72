"""``physfed pretrain`` and ``physfed assets``: their arguments and their calls."""

import argparse
from pathlib import Path

from physfed_ray.shipped import found

SUMMARY = "Train a frozen network once, for objectives and backbones that name it."
EXAMPLES = (
    "physfed pretrain my_asset.yaml",
    "physfed pretrain my_asset.yaml --set training.steps=200 --runtime inline",
    "physfed pretrain my_asset.yaml --out runs/my_asset --resume",
)
ASSETS = "Print the frozen networks that experiments can name."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    parser.add_argument(
        "pretrain", metavar="FILE.yaml", type=found, help="a file with the key `pretrain`"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the run, a path or an fsspec URL (default: NAME in $PHYSFED_RUNS, or in "
        "runs)",
    )
    parser.add_argument("--resume", action="store_true", help="go on after the last checkpoint")


def add_assets_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``physfed assets`` takes."""
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        type=Path,
        help="another folder than that of $PHYSFED_CACHE, or of ~/.cache/physfed_ray",
    )


def call(options: argparse.Namespace) -> None:
    """Train, and print the name to put into an experiment."""
    from physfed_ray.experiment.pretrain import load_pretrain

    pretrain = load_pretrain(options.pretrain, options.set)

    from physfed_ray.runtime.pretrain import run_pretrain
    from physfed_ray.runtime.submission import default_folder
    from physfed_ray.screen.assets import print_pretrained
    from physfed_ray.screen.run import progress

    out = options.out or default_folder(pretrain.pretrain)
    with progress() as show:
        asset = run_pretrain(
            pretrain,
            out,
            resume=options.resume,
            runtime=options.runtime,
            address=options.address,
            on_event=show,
            command=options.command,
        )
    print_pretrained(asset, out)


def list_assets(options: argparse.Namespace) -> None:
    """Print the assets of a folder."""
    from physfed_ray.screen.assets import print_assets

    print_assets(options.folder)

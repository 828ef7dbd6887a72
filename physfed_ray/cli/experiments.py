"""``physfed experiments``: what comes with the package, to be run by name or to start from."""

import argparse

from physfed_ray.errors import PhysFedError
from physfed_ray.shipped import shipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="print this one's file instead of the list; add `> my.yaml` to start yours from it",
    )


def call(options: argparse.Namespace) -> None:
    """Print the names of the shipped experiments, or the file of one.

    Raises:
        PhysFedError: None has the name.
    """
    files = shipped()
    if options.name is None:
        width = max(map(len, files))
        for name, file in files.items():
            summary = file.read_text().splitlines()[0].removeprefix("# ")
            print(f"{name:{width}}  {summary}")
        return
    if options.name not in files:
        known = ", ".join(files)
        raise PhysFedError(f"no shipped experiment is named '{options.name}'; there are: {known}")
    print(files[options.name].read_text(), end="")

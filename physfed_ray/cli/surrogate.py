"""``physfed surrogate``: its arguments and its call."""

import argparse
from collections.abc import Callable
from pathlib import Path

SUMMARY = (
    "Measure what surrogate images (FESF) keep for a diagnosis that a federation learns, and what "
    "they give away to attackers."
)
EXAMPLES = (
    "physfed surrogate experiments/surrogate.yaml",
    "physfed surrogate my.yaml --out runs/surrogates --set quality=null --set 'betas=[0.1, 1]'",
    "physfed surrogate my.yaml --set 'data.source={dicom: ../ct}' --set data.test_patients=6",
)


def add_arguments(
    parser: argparse.ArgumentParser, add_set: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the arguments of the command.

    Args:
        parser: The command's.
        add_set: Adds ``--set``.
    """
    parser.add_argument("surrogate", metavar="FILE.yaml", type=Path)
    add_set(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="folder of the study (default: its name in $PHYSFED_RUNS, or in runs); what it has "
        "measured already is not measured again",
    )


def call(options: argparse.Namespace) -> None:
    """Run the study, and write its page."""
    from physfed_ray.surrogates.file import load_surrogate

    file = load_surrogate(options.surrogate, options.set)

    from physfed_ray.runtime.submission import default_folder
    from physfed_ray.screen.surrogate import print_result, show
    from physfed_ray.surrogates.page import write_page
    from physfed_ray.surrogates.run import run_study

    out = options.out or Path(default_folder(file.surrogate))
    rows = run_study(file, out, show)
    print_result(file, rows, write_page(file, rows, options.command))

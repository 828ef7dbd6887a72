"""``physfed compare``: its arguments and its call."""

import argparse
from pathlib import Path

SUMMARY = "Compare runs of several methods and seeds on one page."
EXAMPLES = (
    "physfed compare runs/real_ct/final/* --out docs/results/real_ct.md --classical",
    "physfed compare runs/table1_redcnn/runs/* --out table1.md --paper",
    "physfed compare runs/mine/runs/* --against FedAvg",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("run_dirs", metavar="RUN_DIR", type=Path, nargs="+")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison.md"),
        metavar="FILE",
        help="Markdown page; a folder of its name holds its figures, and its tables as CSV and "
        "LaTeX (default: comparison.md)",
    )
    parser.add_argument(
        "--classical",
        action="store_true",
        help="also score FBP with another kernel, total variation and non-local means, each tuned "
        "on validation patients",
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="put the numbers that the SCAN-PhysFed paper prints in brackets beside yours",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="METHOD",
        help="also show how far every other method is from this one, slice by slice; its name as "
        "on the page, with ', NETWORK' behind it where several networks have one; may be given "
        "several times",
    )
    parser.add_argument(
        "--force", action="store_true", help="compare runs of different data all the same"
    )


def compare(options: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    from physfed_ray.rundir.place import require_run

    for run_dir in options.run_dirs:
        require_run(run_dir)

    from physfed_ray.pages.compare import compare

    page = compare(
        options.run_dirs,
        options.out,
        classical=options.classical,
        force=options.force,
        paper=options.paper,
        against=options.against,
    )
    print(page)

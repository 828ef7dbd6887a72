"""``physfed enrol``: its arguments and its call."""

import argparse
from collections.abc import Callable
from pathlib import Path

from physfed_ray.errors import PhysFedError

SUMMARY = (
    "Let a new hospital join a finished run: train a private part on its patients, and show what "
    "it gains over being served unseen."
)
EXAMPLES = (
    "physfed enrol runs/real_ct-fedper-seed1 --protocol unseen-2 --patients ct/north --id north",
    "physfed enrol RUN_DIR --protocol scanner.yaml --patients ct --rounds 20 --curve 1,4",
    "physfed enrol RUN_DIR --protocol paper-8 --phantoms 6 --rounds 3",
)


def add_arguments(parser: argparse.ArgumentParser, count: Callable[[str], int]) -> None:
    """Add the arguments of the command.

    Args:
        parser: The command's.
        count: Reads a whole number of at least 1.
    """
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument(
        "--protocol",
        metavar="NAME|FILE",
        required=True,
        help="how the hospital scans: a protocol of the run, a preset (`physfed protocols`), or a "
        "YAML file with its seven numbers",
    )
    patients = parser.add_mutually_exclusive_group(required=True)
    patients.add_argument(
        "--patients", metavar="DIR", type=Path, help="folder with its CT DICOM at full dose"
    )
    patients.add_argument(
        "--phantoms", metavar="N", type=count, help="so many phantoms instead, to try it out"
    )
    parser.add_argument("--id", metavar="ID", help="its name (default: new-1, new-2, ...)")
    parser.add_argument(
        "--rounds", metavar="N", type=count, help="rounds at most (default: those of the run)"
    )
    parser.add_argument(
        "--patience",
        metavar="N",
        type=count,
        default=10,
        help="end after so many rounds without a better validation (default: 10)",
    )
    parser.add_argument(
        "--test", metavar="N", type=count, help="patients of the test (default: a quarter)"
    )
    parser.add_argument(
        "--validation",
        metavar="N",
        type=count,
        help="patients that choose the round (default: a fifth)",
    )
    parser.add_argument(
        "--curve",
        metavar="N,N,...",
        type=_curve,
        help="numbers of training patients to learn from, beside all of them; none: all alone "
        "(default: 1, 2, 4, ...)",
    )
    parser.add_argument(
        "--start",
        choices=("initial", "nearest"),
        default="initial",
        help="of a private part: initial weights (default), or those of the nearest client, which "
        "must agree to give them",
    )
    parser.add_argument(
        "--one-shot",
        action="store_true",
        help="train nothing: weight the steps of a diffusion network after one slice",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=1, help="deals patients, draws noise (default: 1)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where it is")
    parser.add_argument(
        "--threads", metavar="N", type=count, help="CPU threads (default: those of the run)"
    )
    parser.add_argument("--again", action="store_true", help="replace a client of that --id")
    parser.add_argument(
        "--known-patients",
        action="store_true",
        help="allow patients with the ids of patients of the run's own data",
    )


def _curve(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    parts = text.split(",")
    if not all(part.isdecimal() and 0 < int(part) < 1_000_000 for part in parts):
        raise argparse.ArgumentTypeError(f"give numbers such as 1,2,4, or none, not {text}")
    return tuple(int(part) for part in parts)


def call(options: argparse.Namespace) -> None:
    """Run the command."""
    from physfed_ray.experiment.settings import LARGEST_SEED

    if not 0 <= options.seed <= LARGEST_SEED:
        raise PhysFedError(f"--seed {options.seed}: give a number from 0 to {LARGEST_SEED}")
    if options.one_shot and (options.rounds is not None or options.curve is not None):
        raise PhysFedError(
            "--one-shot learns from one slice, without rounds: leave --rounds and --curve out"
        )
    folder = options.patients
    if folder is not None and not folder.is_dir():
        raise PhysFedError(f"--patients {folder}: there is no such folder")

    from physfed_ray.screen.enrol import print_enrolled
    from physfed_ray.screen.run import progress
    from physfed_ray.serving.enrol.card import FOLDER
    from physfed_ray.serving.enrol.patients import Dealing
    from physfed_ray.serving.enrol.run import enrol
    from physfed_ray.serving.enrol.wish import Wish

    wish = Wish(
        protocol=options.protocol,
        dealing=Dealing(
            folder=None if folder is None else folder.resolve(),
            phantoms=options.phantoms or 0,
            test=options.test,
            validation=options.validation,
            seed=options.seed,
        ),
        name=options.id,
        rounds=options.rounds,
        patience=options.patience,
        curve=options.curve,
        start=options.start,
        device=options.device,
        threads=options.threads,
        again=options.again,
        known_patients=options.known_patients,
        one_shot=options.one_shot,
    )
    with progress() as show:
        card = enrol(options.run_dir, wish, show)
    print_enrolled(card, f"{options.run_dir.rstrip('/')}/{FOLDER}/{card.id}")

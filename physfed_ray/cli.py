"""The ``physfed`` command: parses, calls, prints."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from physfed_ray import __version__
from physfed_ray.errors import PhysFedError

Commands = argparse._SubParsersAction  # argparse has no public name for it
INTERRUPTED = 130
USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 2 (user error), 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = make_parser().parse_args(arguments)
    options.command = shlex.join(["physfed", *arguments])
    try:
        options.call(options)
    except PhysFedError as error:
        print(f"physfed: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"\nphysfed: stopped; to go on: {_again(options)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
    return 0


def _again(options: argparse.Namespace) -> str:
    missing = options.call is _run and not options.resume
    return f"{options.command} --resume" if missing else str(options.command)


def _run(options: argparse.Namespace) -> None:
    from physfed_ray.experiment import load_experiment
    from physfed_ray.progress import progress
    from physfed_ray.runtime.run import run_experiment

    experiment = load_experiment(options.experiment, options.set)
    with progress() as show:
        run_experiment(
            experiment,
            options.out or Path("runs", experiment.run_name()),
            resume=options.resume,
            runtime=options.runtime,
            address=options.address,
            on_event=show,
            command=options.command,
        )


def _prepare(options: argparse.Namespace) -> None:
    from physfed_ray.data.prepare import left_out_files, prepare
    from physfed_ray.experiment import load_experiment
    from physfed_ray.progress import progress

    experiment = load_experiment(options.experiment, options.set)
    with progress() as show:
        if options.runtime == "inline":
            prepared = prepare(experiment, progress=show)
        else:
            from physfed_ray.runtime.cluster import connect
            from physfed_ray.runtime.prepare import prepare_on_ray

            connect(options.address)
            prepared = prepare_on_ray(experiment, show)
    for why, path in left_out_files(experiment):
        print(f"left out ({why}): {path}")
    print(prepared.root)


def _report(options: argparse.Namespace) -> None:
    from physfed_ray.evaluation.report import write_report

    print(write_report(options.run_dir))


def _compare(options: argparse.Namespace) -> None:
    from physfed_ray.evaluation.compare import compare

    page = compare(options.run_dirs, options.out, classical=options.classical, force=options.force)
    print(page)


def _protocols(options: argparse.Namespace) -> None:
    from physfed_ray.catalogue import print_protocols

    print_protocols(options.pattern)


def _methods(_: argparse.Namespace) -> None:
    from physfed_ray.catalogue import print_methods

    print_methods()


def _describe(options: argparse.Namespace) -> None:
    from physfed_ray.describe import print_description
    from physfed_ray.experiment import load_experiment

    print_description(load_experiment(options.experiment, options.set))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="physfed",
        description="Simulate personalised federated learning for low-dose CT.",
        epilog="Start with: physfed run experiments/quickstart.yaml",
    )
    parser.add_argument("--version", action="version", version=f"physfed_ray {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_prepare(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_protocols(commands)
    _add_methods(commands)
    _add_describe(commands)
    return parser


def _add_run(commands: "Commands[argparse.ArgumentParser]") -> None:
    run = _command(
        commands,
        _run,
        "Prepare the data, train, evaluate, and write the report.",
        "physfed run experiments/quickstart.yaml",
        "physfed run my.yaml --set method.name=fedavg --set training.lr=3e-4",
        "physfed run my.yaml --out runs/first --resume",
        "physfed run my.yaml --runtime inline --set 'clients.0.patients=[A0001]'",
    )
    _experiment_arguments(run)
    run.add_argument(
        "--out",
        metavar="DIR",
        help="run directory, a path or an fsspec URL (default: runs/NAME-METHOD-seedSEED)",
    )
    run.add_argument(
        "--resume", action="store_true", help="go on after the last completed round of --out"
    )
    _runtime_arguments(run)


def _add_prepare(commands: "Commands[argparse.ArgumentParser]") -> None:
    prepare = _command(
        commands,
        _prepare,
        "Scan the patients under the protocols into the cache, as the first step of `run` does.",
        "physfed prepare experiments/real_ct.yaml",
        "physfed prepare my.yaml --set data.image_size=128",
    )
    _experiment_arguments(prepare)
    _runtime_arguments(prepare)


def _add_report(commands: "Commands[argparse.ArgumentParser]") -> None:
    report = _command(
        commands,
        _report,
        "Write tables, figures and report.html of a run again.",
        "physfed report runs/real_ct-scan_physfed-seed1",
    )
    report.add_argument("run_dir", metavar="RUN_DIR", type=Path)


def _add_compare(commands: "Commands[argparse.ArgumentParser]") -> None:
    compare = _command(
        commands,
        _compare,
        "Compare runs of several methods and seeds on one page.",
        "physfed compare runs/real_ct/final/* --out docs/results/real_ct.md --classical",
    )
    compare.add_argument("run_dirs", metavar="RUN_DIR", type=Path, nargs="+")
    compare.add_argument(
        "--out",
        type=Path,
        default=Path("comparison.md"),
        metavar="FILE",
        help="Markdown page; its figures go beside it (default: comparison.md)",
    )
    compare.add_argument(
        "--classical",
        action="store_true",
        help="also score total variation and non-local means, tuned on validation patients",
    )
    compare.add_argument(
        "--force", action="store_true", help="compare runs of different data all the same"
    )


def _add_protocols(commands: "Commands[argparse.ArgumentParser]") -> None:
    protocols = _command(
        commands,
        _protocols,
        "Print the protocols that have a name.",
        "physfed protocols",
        "physfed protocols 'unseen-*'",
    )
    protocols.add_argument("pattern", nargs="?", default="*", help="shell pattern (default: all)")


def _add_methods(commands: "Commands[argparse.ArgumentParser]") -> None:
    _command(
        commands,
        _methods,
        "Print the federated methods, their papers and their settings.",
        "physfed methods",
    )


def _add_describe(commands: "Commands[argparse.ArgumentParser]") -> None:
    describe = _command(
        commands,
        _describe,
        "Print the resolved experiment with its sizes and a time estimate, without running it.",
        "physfed describe experiments/real_ct.yaml",
        "physfed describe my.yaml --set backbone.channels=96",
    )
    _experiment_arguments(describe)


def _command(
    commands: "Commands[argparse.ArgumentParser]",
    call: Callable[[argparse.Namespace], None],
    summary: str,
    *examples: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        call.__name__.removeprefix("_"),
        help=summary,
        description=summary,
        epilog="examples:\n  " + "\n  ".join(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(call=call)
    return parser


def _experiment_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT.yaml", type=Path)
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a key of the file, value in YAML; may be given several times",
    )


def _runtime_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime",
        choices=("ray", "inline"),
        default="ray",
        help="ray: all cores or a cluster (default); inline: one process, for debugging",
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster to join, for example auto (default: start Ray on this machine)",
    )

"""The arguments of the ``physfed`` command, with their help."""

import argparse
import re
from pathlib import Path

from physfed_ray import __version__
from physfed_ray.cli import compare, denoise, enrol, experiments, export, pretrain, surrogate
from physfed_ray.shipped import found

Commands = argparse._SubParsersAction  # argparse has no public name for it


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command; ``action`` of its result names what to do."""
    parser = argparse.ArgumentParser(
        prog="physfed",
        description="Simulate personalised federated learning for low-dose CT.",
        epilog="Start with: physfed run quickstart",
    )
    parser.add_argument("--version", action="version", version=f"physfed_ray {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_sweep(commands)
    _add_submit(commands)
    _add_jobs(commands)
    _add_prepare(commands)
    _add_pretrain(commands)
    _add_reports(commands)
    _add_report(commands)
    _add_denoise(commands)
    export.add_arguments(_command(commands, "export", export.SUMMARY, *export.EXAMPLES))
    compare.add_arguments(_command(commands, "compare", compare.SUMMARY, *compare.EXAMPLES))
    enrol.add_arguments(_command(commands, "enrol", enrol.SUMMARY, *enrol.EXAMPLES), _count)
    surrogate.add_arguments(
        _command(commands, "surrogate", surrogate.SUMMARY, *surrogate.EXAMPLES), _set_argument
    )
    _add_protocols(commands)
    _add_methods(commands)
    _add_metrics(commands)
    _add_describe(commands)
    _add_experiments(commands)
    return parser


def _add_run(commands: "Commands[argparse.ArgumentParser]") -> None:
    run = _command(
        commands,
        "run",
        "Prepare the data, train, evaluate, and write the page; of a suite, what is missing.",
        "physfed run quickstart",
        "physfed run my.yaml --set method.name=fedavg --set training.lr=3e-4",
        "physfed run my.yaml --out runs/first --resume",
        "physfed run my.yaml --runtime inline --set 'clients.0.patients=[A0001]'",
        "physfed run experiments/table1_redcnn.yaml --set scale=small --runtime inline --jobs 2",
    )
    _experiment_arguments(run)
    run.add_argument(
        "--out",
        metavar="DIR",
        help="run directory, a path or an fsspec URL "
        "(default: NAME-METHOD-seedSEED in $PHYSFED_RUNS, or in runs); of a suite, the folder of "
        "its runs",
    )
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last completed round of --out; a suite always does",
    )
    run.add_argument(
        "--dashboard",
        action="store_true",
        help="start Ray's dashboard with the run on this machine (150 MiB more)",
    )
    run.add_argument(
        "--jobs",
        metavar="N",
        type=_count,
        help="runs of a suite side by side (default: as many as there are cores for; on a GPU and "
        "on Ray 1)",
    )
    _runtime_arguments(run)


def _add_sweep(commands: "Commands[argparse.ArgumentParser]") -> None:
    sweep = _command(
        commands,
        "sweep",
        "Search keys of an experiment with Optuna, and test the best trial once.",
        "physfed sweep experiments/sweep_small.yaml",
        "physfed sweep my_sweep.yaml --trials 100 --time-budget 8h --address auto",
        "physfed sweep my_sweep.yaml --out runs/my_sweep --resume",
        "physfed sweep my_sweep.yaml --dry-run --set 'space.training.lr={uniform: [1e-4, 1e-2]}'",
    )
    sweep.add_argument("sweep", metavar="SWEEP.yaml", type=Path)
    _set_argument(sweep)
    sweep.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the sweep, a path that all machines see or an fsspec URL (default: the "
        "sweep's name in $PHYSFED_RUNS, or in runs)",
    )
    sweep.add_argument("--resume", action="store_true", help="go on with the trials that --out has")
    sweep.add_argument(
        "--trials", metavar="N", type=_count, help="trials in all (default: as the file says)"
    )
    sweep.add_argument(
        "--time-budget",
        metavar="TIME",
        type=_seconds,
        help="no trial begins or goes on after so long, for example 90m or 2h30m; the best is "
        "still tested",
    )
    sweep.add_argument(
        "--jobs", metavar="N", type=_count, help="trials side by side (default: as the file says)"
    )
    sweep.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )
    _runtime_arguments(sweep)


def _add_submit(commands: "Commands[argparse.ArgumentParser]") -> None:
    submit = _command(
        commands,
        "submit",
        "Check an experiment here, then run it as a job of a Ray cluster.",
        "physfed submit quickstart --follow",
        "physfed submit my.yaml --set data.source.dicom=/mnt/ct --out s3://bucket/runs/first",
        "physfed submit my.yaml --address http://127.0.0.1:8265 --resume",
    )
    _experiment_arguments(submit)
    submit.add_argument(
        "--out",
        metavar="DIR",
        help="run directory, an absolute path on the cluster or an fsspec URL "
        "(default: NAME-METHOD-seedSEED in $PHYSFED_RUNS, or in ~/physfed/runs of the head)",
    )
    submit.add_argument(
        "--resume", action="store_true", help="go on after the last completed round of --out"
    )
    submit.add_argument(
        "--follow", action="store_true", help="print the job's log and exit as the job does"
    )
    _dashboard_argument(submit)


def _add_jobs(commands: "Commands[argparse.ArgumentParser]") -> None:
    jobs = _command(
        commands,
        "jobs",
        "List the jobs of a Ray cluster, follow one, or stop one.",
        "physfed jobs",
        "physfed jobs follow physfed-quickstart-1a2b3c",
        "physfed jobs stop physfed-quickstart-1a2b3c --address http://127.0.0.1:8265",
    )
    _dashboard_argument(jobs)
    actions = jobs.add_subparsers(title="actions", metavar="ACTION")
    for name, summary in (
        ("follow", "Print a job's log from its beginning and exit as the job does."),
        ("stop", "Stop a job; its completed rounds stay, and --resume goes on from them."),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.set_defaults(action=f"jobs {name}")
        action.add_argument("job", metavar="ID")
        _dashboard_argument(action, default=argparse.SUPPRESS)


def _add_prepare(commands: "Commands[argparse.ArgumentParser]") -> None:
    prepare = _command(
        commands,
        "prepare",
        "Scan the patients under the protocols into the cache, as the first step of `run` does.",
        "physfed prepare experiments/real_ct.yaml",
        "physfed prepare my.yaml --set data.image_size=128",
    )
    _experiment_arguments(prepare)
    _runtime_arguments(prepare)


def _add_pretrain(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "pretrain", pretrain.SUMMARY, *pretrain.EXAMPLES)
    pretrain.add_arguments(parser)
    _set_argument(parser)
    _runtime_arguments(parser)
    parser = _command(commands, "assets", pretrain.ASSETS, "physfed assets")
    pretrain.add_assets_arguments(parser)


def _add_reports(commands: "Commands[argparse.ArgumentParser]") -> None:
    reports = _command(
        commands,
        "reports",
        "Write a page of slices beside their reports and the nearest other reports.",
        "physfed reports experiments/real_ct.yaml --show 24",
        "physfed reports my.yaml --set 'reports.encoder={name: minilm, tokens: 32}' --out t.html",
        "physfed reports runs/real_ct-scan_physfed-seed1",
    )
    reports.add_argument(
        "target",
        metavar="DIR|EXPERIMENT.yaml",
        type=Path,
        help="an experiment, whose missing data are prepared first, a run directory, or a folder "
        "that `physfed prepare` printed",
    )
    reports.add_argument(
        "--show",
        metavar="N",
        type=_count,
        default=12,
        help="slices to show, spread over clients and patients (default: 12)",
    )
    reports.add_argument(
        "--out",
        metavar="PAGE.html",
        type=Path,
        default=Path("reports.html"),
        help="the page, which holds texts and pictures of patients (default: reports.html)",
    )
    _set_argument(reports)
    _runtime_arguments(reports)


def _count(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number of at least 1, not {text}")
    return int(text)


def _seconds(text: str) -> float:
    """Return the seconds of a time such as 2h30m."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or found is None:
        raise argparse.ArgumentTypeError(f"give a time such as 45s, 90m or 2h30m, not {text}")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


def _add_report(commands: "Commands[argparse.ArgumentParser]") -> None:
    report = _command(
        commands,
        "report",
        "Write tables, figures and report.html of a run again.",
        "physfed report runs/real_ct-scan_physfed-seed1",
    )
    report.add_argument("run_dir", metavar="RUN_DIR", type=Path)


def _add_denoise(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "denoise", denoise.SUMMARY, *denoise.EXAMPLES)
    denoise.add_arguments(parser, _count)


def _add_protocols(commands: "Commands[argparse.ArgumentParser]") -> None:
    protocols = _command(
        commands,
        "protocols",
        "Print the protocols that have a name.",
        "physfed protocols",
        "physfed protocols 'unseen-*'",
    )
    protocols.add_argument("pattern", nargs="?", default="*", help="shell pattern (default: all)")


def _add_methods(commands: "Commands[argparse.ArgumentParser]") -> None:
    _command(
        commands,
        "methods",
        "Print the federated methods, their papers and their settings.",
        "physfed methods",
    )


def _add_metrics(commands: "Commands[argparse.ArgumentParser]") -> None:
    _command(
        commands,
        "metrics",
        "Print the image metrics, their units, and which direction is better.",
        "physfed metrics",
    )


def _add_describe(commands: "Commands[argparse.ArgumentParser]") -> None:
    describe = _command(
        commands,
        "describe",
        "Print the resolved experiment with its sizes and a time estimate, without running it; of "
        "a suite, its runs and what is missing.",
        "physfed describe experiments/real_ct.yaml",
        "physfed describe my.yaml --set backbone.channels=96",
        "physfed describe experiments/table1_redcnn.yaml --set scale=small",
    )
    _experiment_arguments(describe)
    describe.add_argument(
        "--out", metavar="DIR", help="of a suite: the folder of its runs (default: as for `run`)"
    )


def _add_experiments(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = _command(
        commands,
        "experiments",
        "Print the experiments that come with physfed, or the file of one.",
        "physfed experiments",
        "physfed experiments quickstart",
        "physfed experiments template",
    )
    experiments.add_arguments(parser)


def _command(
    commands: "Commands[argparse.ArgumentParser]", name: str, summary: str, *examples: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog="examples:\n  " + "\n  ".join(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(action=name)
    return parser


def _experiment_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        type=found,
        help="a YAML file, or a name that `physfed experiments` lists",
    )
    _set_argument(parser)


def _set_argument(parser: argparse.ArgumentParser) -> None:
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
        help="Ray cluster to join, for example auto (default: $RAY_ADDRESS, or else Ray is started "
        "on this machine, whatever runs there)",
    )


def _dashboard_argument(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    parser.add_argument(
        "--address",
        metavar="URL",
        default=default,
        help="the cluster's dashboard (default: $RAY_API_SERVER_ADDRESS, or "
        "http://127.0.0.1:8265, where `ray dashboard` opens its tunnel)",
    )

"""The ``physfed`` command: parses, calls, prints.

A command reads its file before it imports what does the work: a mistake is told in less than a
second, and torch and Ray alone take longer than that.
"""

import argparse
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from physfed_ray.cli import enrol, experiments, pretrain, surrogate
from physfed_ray.cli.compare import compare as _compare
from physfed_ray.cli.denoise import denoise as _denoise
from physfed_ray.cli.export import export as _export
from physfed_ray.cli.parser import make_parser
from physfed_ray.errors import PhysFedError, sentence

if TYPE_CHECKING:
    from physfed_ray.data.prepared import Prepared
    from physfed_ray.experiment import Experiment
    from physfed_ray.runtime.jobs import Jobs

FAILED_RUNS = 1
INTERRUPTED = 130
USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0, 1 (runs of a suite failed, or the program did), 2 (user error), 130 (Ctrl-C), or that of the
    job which was followed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = make_parser().parse_args(arguments)
    options.command = shlex.join(["physfed", *arguments])
    try:
        return CALLS[options.action](options) or 0
    except PhysFedError as error:
        print(f"physfed: error: {sentence(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"\nphysfed: stopped; to go on: {_again(options)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:  # a fault of the program, or of a package that it was given
        traceback.print_exc()
        print(f"physfed: error: {sentence(error)}", file=sys.stderr)
        return FAILED_RUNS


def _again(options: argparse.Namespace) -> str:
    missing = options.action in ("run", "sweep", "pretrain") and not options.resume
    return f"{options.command} --resume" if missing else str(options.command)


def _run(options: argparse.Namespace) -> int:
    from physfed_ray.experiment import load_experiment
    from physfed_ray.suites.suite import is_suite

    if is_suite(options.experiment):
        return _run_suite(options)
    if options.jobs:
        raise PhysFedError(f"--jobs is for suites, and {options.experiment} is one experiment")
    if options.dashboard and options.runtime == "inline":
        raise PhysFedError("--dashboard is Ray's, and --runtime inline has no Ray: leave one out")
    experiment = load_experiment(options.experiment, options.set)

    from physfed_ray.runtime.run import run_experiment
    from physfed_ray.runtime.submission import default_run_directory
    from physfed_ray.screen.run import progress

    with progress() as show:
        run_experiment(
            experiment,
            options.out or default_run_directory(experiment),
            resume=options.resume,
            runtime=options.runtime,
            address=options.address,
            dashboard=options.dashboard,
            on_event=show,
            command=options.command,
        )
    return 0


def _run_suite(options: argparse.Namespace) -> int:
    from physfed_ray.suites.suite import load_suite

    suite = load_suite(options.experiment, options.set)
    if options.dashboard:
        raise PhysFedError(
            f"--dashboard is for one experiment, and {options.experiment} is a suite of runs with "
            "a Ray each: start one for all with `ray start --head`, and add --address auto"
        )

    from physfed_ray.runtime.submission import default_folder
    from physfed_ray.screen.suite import SuiteDisplay, print_result
    from physfed_ray.suites.run import run_suite, write_page

    out = (options.out or default_folder(suite.folder)).rstrip("/")
    with SuiteDisplay() as show:
        result = run_suite(
            suite,
            out,
            jobs=options.jobs,
            runtime=options.runtime,
            address=options.address,
            on_event=show,
            command=options.command,
        )
    print_result(suite, out, result, write_page(suite, out, result))
    return FAILED_RUNS if result.failed else 0


def _sweep(options: argparse.Namespace) -> int:
    from physfed_ray.experiment.file import read_yaml

    read_yaml(options.sweep)

    from physfed_ray.sweep.space import load_sweep

    trials = [] if options.trials is None else [f"trials={options.trials}"]
    sweep = load_sweep(options.sweep, [*options.set, *trials])

    from physfed_ray.runtime.submission import default_folder
    from physfed_ray.screen.sweep import SweepDisplay, print_plan, print_result
    from physfed_ray.sweep.driver import run_sweep
    from physfed_ray.sweep.folder import Folder
    from physfed_ray.sweep.page import write_results
    from physfed_ray.sweep.pool import Setup

    out = options.out or default_folder(sweep.file.sweep)
    if options.dry_run:
        from physfed_ray.cost.estimate import run_seconds

        seconds = run_seconds(sweep.experiment({}, sweep.file.seeds[0]))
        print_plan(sweep, out, seconds)
        return 0
    print_plan(sweep, out)
    setup = Setup(
        Folder(out),
        resume=options.resume,
        runtime=options.runtime,
        address=options.address,
        jobs=options.jobs,
        time_budget_s=options.time_budget,
        command=options.command,
    )
    with SweepDisplay(sweep.file) as show:
        result = run_sweep(sweep, setup, show)
    page = write_results(sweep, setup.folder, result, options.command)
    print_result(result, sweep.file, page, setup.folder.out)
    return FAILED_RUNS if result.failed or result.best is None else 0


def _submit(options: argparse.Namespace) -> int:
    from physfed_ray.runtime.submission import make_job

    job = make_job(
        options.experiment,
        options.set,
        options.out,
        resume=options.resume,
        command=options.command,
    )

    from physfed_ray.runtime.jobs import Jobs

    jobs = Jobs(options.address)
    jobs.submit(job)
    print(f"job: {job.id}")
    print(f"run directory, on the cluster: {job.run_dir}")
    print(f"to follow it: physfed jobs follow {job.id} --address {jobs.address}")
    print(f"to stop it: physfed jobs stop {job.id} --address {jobs.address}", flush=True)
    return _follow(jobs, job.id) if options.follow else 0


def _jobs(options: argparse.Namespace) -> None:
    from physfed_ray.runtime.jobs import Jobs, jobs_table

    print(jobs_table(Jobs(options.address).submitted()))


def _jobs_follow(options: argparse.Namespace) -> int:
    from physfed_ray.runtime.jobs import Jobs

    return _follow(Jobs(options.address), options.job)


def _jobs_stop(options: argparse.Namespace) -> None:
    from physfed_ray.runtime.jobs import Jobs

    _stop(Jobs(options.address), options.job)


def _stop(jobs: "Jobs", job_id: str) -> None:
    going, job = jobs.stop(job_id)
    if not going:
        print(f"job {job_id} had already ended: {job.status}")
        return
    command = (job.metadata or {}).get("command", "")
    missing = "" if "--resume" in command else " --resume"
    print(f"stopped job {job_id}" + (f"; to go on: {command}{missing}" if command else ""))


def _follow(jobs: "Jobs", job_id: str) -> int:
    from physfed_ray.runtime.jobs import outcome

    try:
        status, problem = outcome(jobs.follow(job_id, lambda text: print(text, end="", flush=True)))
    except KeyboardInterrupt:
        if _wants_stop():
            _stop(jobs, job_id)
        else:
            print(
                f"\njob {job_id} goes on; to stop it: "
                f"physfed jobs stop {job_id} --address {jobs.address}"
            )
        return INTERRUPTED
    if problem:
        print(f"physfed: error: {problem}", file=sys.stderr)
    return status


def _wants_stop() -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return input("\nstop the job as well? [y/N] ").strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        return False


def _prepare(options: argparse.Namespace) -> None:
    from physfed_ray.experiment import load_experiment

    experiment = load_experiment(options.experiment, options.set)

    from physfed_ray.data.prepare import left_out_files
    from physfed_ray.screen.left_out import print_left_out

    prepared = _prepared(experiment, options)
    print_left_out(left_out_files(experiment))
    print(prepared.root)


def _prepared(experiment: "Experiment", options: argparse.Namespace) -> "Prepared":
    from physfed_ray.screen.run import progress

    with progress() as show:
        if options.runtime == "inline":
            from physfed_ray.data.prepare import prepare

            return prepare(experiment, progress=show)
        from physfed_ray.runtime.cluster import connect
        from physfed_ray.runtime.prepare import prepare_on_ray

        connect(options.address)
        return prepare_on_ray(experiment, show)


def _reports(options: argparse.Namespace) -> None:
    from physfed_ray.experiment import load_experiment

    if not options.target.is_dir():
        load_experiment(options.target, options.set)

    from physfed_ray.data.prepared import Prepared
    from physfed_ray.pages.reports_page import find, write_reports_page

    found = find(options.target, options.set)
    if isinstance(found, Prepared):
        page = write_reports_page(found, options.out, options.show)
    else:
        prepared = _prepared(found, options)
        page = write_reports_page(prepared, options.out, options.show, found)
    print(page)


def _report(options: argparse.Namespace) -> None:
    from physfed_ray.rundir.place import require_run

    require_run(options.run_dir)

    from physfed_ray.pages.run_page import write_run_page

    print(write_run_page(options.run_dir))


def _protocols(options: argparse.Namespace) -> None:
    from physfed_ray.screen.catalogue import print_protocols

    print_protocols(options.pattern)


def _methods(_: argparse.Namespace) -> None:
    from physfed_ray.screen.catalogue import print_methods

    print_methods()


def _metrics(_: argparse.Namespace) -> None:
    from physfed_ray.screen.catalogue import print_metrics

    print_metrics()


def _describe(options: argparse.Namespace) -> None:
    from physfed_ray.experiment import load_experiment
    from physfed_ray.suites.suite import is_suite

    if is_suite(options.experiment):
        _describe_suite(options)
        return
    if options.out:
        raise PhysFedError(f"--out is for suites, and {options.experiment} is one experiment")
    experiment = load_experiment(options.experiment, options.set)

    from physfed_ray.screen.describe import print_description

    print_description(experiment)


def _describe_suite(options: argparse.Namespace) -> None:
    from physfed_ray.suites.suite import load_suite

    suite = load_suite(options.experiment, options.set)

    from physfed_ray.runtime.submission import default_folder
    from physfed_ray.screen.suite import print_suite
    from physfed_ray.suites.state import standing

    out = (options.out or default_folder(suite.folder)).rstrip("/")
    print_suite(suite, standing(suite, out), out)


CALLS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "run": _run,
    "sweep": _sweep,
    "submit": _submit,
    "jobs": _jobs,
    "jobs follow": _jobs_follow,
    "jobs stop": _jobs_stop,
    "prepare": _prepare,
    "reports": _reports,
    "report": _report,
    "denoise": _denoise,
    "export": _export,
    "compare": _compare,
    "enrol": enrol.call,
    "surrogate": surrogate.call,
    "protocols": _protocols,
    "methods": _methods,
    "metrics": _metrics,
    "describe": _describe,
    "pretrain": pretrain.call,
    "assets": pretrain.list_assets,
    "experiments": experiments.call,
}

"""``physfed denoise``: its arguments and its call."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from physfed_ray.errors import PhysFedError

if TYPE_CHECKING:
    from physfed_ray.serving.parts import RunParts
    from physfed_ray.serving.wanted import Wanted

SUMMARY = "Denoise CT series with a trained run: DICOM in, DICOM out."
EXAMPLES = (
    "physfed denoise runs/real_ct-scan_physfed-seed1 /data/scan out --client paper-3",
    "physfed denoise runs/mine /data/DICOMDIR out --protocol unseen-1",
    "physfed denoise runs/mine /data/scan out --protocol scanner.yaml --policy nearest_protocol",
    "physfed denoise runs/mine /data out --client c1 --address auto --gpus-per-actor 0.5",
)
POLICIES = ("shared", "pvqs", "nearest_protocol")
RULES = ("own", "trained")


def add_arguments(parser: argparse.ArgumentParser, count: Callable[[str], int]) -> None:
    """Add what the command takes; ``count`` reads a whole number of at least 1."""
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a trained run, a path or an fsspec URL")
    parser.add_argument(
        "source", metavar="IN", type=Path, help="a folder of CT, a DICOMDIR, or a file"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder, or one to go on with")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--client", metavar="ID", help="use the own model of a client")
    which.add_argument(
        "--protocol",
        metavar="NAME|FILE",
        help="how the images were scanned: a name (`physfed protocols`), or a YAML file with the "
        "keys of a protocol; the run's policy chooses the model",
    )
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        help="with --protocol: which model serves it (default: the first that the method can)",
    )
    parser.add_argument(
        "--rule",
        choices=RULES,
        help="on which grid the network sees the slices: their own pixels, or the pixel length "
        "of the run's grid (default: own)",
    )
    parser.add_argument(
        "--derived",
        action="store_true",
        help="also denoise images that were computed from others (ImageType DERIVED)",
    )
    parser.add_argument(
        "--batch", metavar="N", type=count, help="slices at a time (default: 1; 4 on a GPU)"
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=count,
        help="CPU threads of the network (default: all cores; with --address 1 for each actor)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: cuda where there is one"
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="denoise on a Ray cluster, for example auto; local starts Ray on this machine",
    )
    parser.add_argument(
        "--actors",
        metavar="N",
        type=count,
        help="with --address: processes (default: all that fit)",
    )
    parser.add_argument(
        "--gpus-per-actor",
        metavar="X",
        type=float,
        help="with --address: GPUs of each process, such as 0.25 (default: 1 where there are any)",
    )


def denoise(options: argparse.Namespace) -> int:
    """Run the command."""
    from physfed_ray.rundir.place import require_run

    require_run(Path(options.run_dir))
    _check(options)

    from physfed_ray.screen.denoise import print_result, progress
    from physfed_ray.serving.denoise import denoise_folder, going_on
    from physfed_ray.serving.output import check_places

    check_places(options.source, options.out)
    with progress() as show:
        wanted, run_parts = _plan(options)
        given = [name for name in ("batch", "threads", "rule") if getattr(options, name)]
        result = denoise_folder(
            going_on(options.out, wanted, given),
            options.source,
            options.out,
            derived=options.derived,
            run_parts=run_parts,
            on_event=show,
        )

    from physfed_ray.pages.denoised_viewer import write_viewer

    print_result(result, write_viewer(result.out, result.found, result.window_hu))
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.client and options.policy:
        raise PhysFedError(
            "--policy goes with --protocol: a client is served by its own model; leave it out"
        )
    if not options.address and (options.actors or options.gpus_per_actor is not None):
        raise PhysFedError(
            "--actors and --gpus-per-actor go with --address: add --address local to use Ray on "
            "this machine"
        )
    share = options.gpus_per_actor
    if share is not None and not (share >= 0 and (share <= 1 or share == int(share))):
        raise PhysFedError(
            f"--gpus-per-actor {share:g}: give a part of a GPU such as 0.25, or a whole number"
        )
    if not options.source.exists():
        raise PhysFedError(
            f"{options.source} does not exist: give a folder, a DICOMDIR or a file of CT"
        )


def _plan(options: argparse.Namespace) -> "tuple[Wanted, RunParts]":
    """Return what is wanted, and what makes it."""
    import torch

    from physfed_ray.rundir.local_files import local_path
    from physfed_ray.serving.denoiser import SERIES_BATCH, SERIES_BATCH_GPU
    from physfed_ray.serving.parts import here
    from physfed_ray.serving.protocol_file import named_or_read
    from physfed_ray.serving.wanted import Wanted

    protocol = named_or_read(options.protocol) if options.protocol else None
    run_parts: RunParts = here
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    threads = options.threads or torch.get_num_threads()
    if options.address:
        from physfed_ray.runtime.denoise import DenoisePool

        pool = DenoisePool.on(options.address, options.actors, options.gpus_per_actor)
        run_parts, device, threads = pool, pool.device, options.threads or 1
    batch = options.batch or (SERIES_BATCH_GPU if device == "cuda" else SERIES_BATCH)
    local = local_path(options.run_dir)
    run = options.run_dir if local is None else str(local.absolute())
    wanted = Wanted(
        run=run,
        client=options.client,
        protocol=protocol,
        policy=options.policy,
        rule=options.rule or "own",
        batch=batch,
        threads=threads,
        device=device,
    )
    return wanted, run_parts

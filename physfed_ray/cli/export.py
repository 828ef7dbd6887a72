"""``physfed export``: its arguments and its call."""

import argparse
from pathlib import Path

SUMMARY = "Write one model of a run as a folder for use elsewhere, with a model card."
EXAMPLES = (
    "physfed export runs/mine --client paper-3 --format onnx",
    "physfed export runs/mine --client c1 --format safetensors --out models/c1",
    "physfed export runs/mine --protocol unseen-1 --format torch",
    "physfed export runs/mine --protocol scanner.yaml --policy nearest_protocol --format onnx",
)
POLICIES = ("shared", "pvqs", "nearest_protocol")
FORMATS = ("safetensors", "onnx", "torch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a trained run, a path or an fsspec URL")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--client", metavar="ID", help="export the own model of a client")
    which.add_argument(
        "--protocol",
        metavar="NAME|FILE",
        help="export the model that serves a scanner: a name (`physfed protocols`), or a YAML file "
        "with the keys of a protocol; the run's policy chooses the model",
    )
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        help="with --protocol: which model serves it (default: the first that the method can)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="safetensors: weights, for physfed_ray; onnx: a graph from HU to HU for any size; "
        "torch: the same as a torch.export program",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="a new folder (default: RUN-MODEL-FORMAT, in the current folder)",
    )


def export(options: argparse.Namespace) -> None:
    """Export the model and print where it is."""
    from physfed_ray.rundir.place import require_run

    require_run(Path(options.run_dir))

    from physfed_ray.serving.protocol_file import named_or_read

    protocol = options.protocol
    known = named_or_read(protocol) if protocol else None
    run = Path(options.run_dir.rstrip("/")).resolve().name
    model = options.client or Path(protocol).stem
    out = options.out or Path(f"{run}-{model}-{options.format}")

    from physfed_ray.serving.export.write import export_run

    made = export_run(
        options.run_dir,
        out,
        options.format,
        client=options.client,
        protocol=known,
        policy=options.policy,
    )
    print(f"model: {made.model}")
    if made.difference is not None:
        print(f"largest difference from the network: {made.difference:.1e} of the window")
    elif options.format == "onnx":
        print("not compared with the network: onnxruntime is not installed")
    print(made.folder)

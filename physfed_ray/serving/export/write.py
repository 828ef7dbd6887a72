"""``physfed export``: one model of a run as a folder, whole or not at all."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from uuid import uuid4

import safetensors.torch
import torch

from physfed_ray import __version__
from physfed_ray.assets.store import read_asset
from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import PhysFedError, sentence
from physfed_ray.rundir.assets import FOLDER
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.choice import Policy
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.export.card import model_card
from physfed_ray.serving.export.graph import HuToHu, largest_difference, make_graph
from physfed_ray.serving.export.load import WEIGHTS_FILE
from physfed_ray.serving.export.onnx_file import onnx_runner, require_onnx, write_onnx
from physfed_ray.serving.export.record import enrolled_record, read_record
from physfed_ray.serving.export.values import VALUES_FILE, plain_values
from physfed_ray.serving.trained import TrainedRun, load_run

Format = Literal["safetensors", "onnx", "torch"]
FORMATS: tuple[Format, ...] = get_args(Format)
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        folder: Where it is.
        model: Whose network it is, in words.
        difference: The largest that a graph had from the network, as a share of the window; None
            where there is no graph, or nothing to run it with.
    """

    folder: Path
    model: str
    difference: float | None


def export_run(
    run_dir: str | Path,
    out: Path,
    form: str,
    *,
    client: str | None = None,
    protocol: Protocol | str | None = None,
    policy: Policy | None = None,
) -> Exported:
    """Write a model of a run, with its card, into a new folder.

    Args:
        run_dir: The run directory: a path or an fsspec URL.
        out: The folder; it may be there if it is empty.
        form: One of ``FORMATS``.
        client: Whose own model; or
        protocol: Of the scanner, as ``TrainedRun.denoiser`` takes it.
        policy: How a protocol is served.

    Raises:
        PhysFedError: There is no such model, the folder is in use, the model cannot have that
            format, or a package is missing.
    """
    if form not in FORMATS:
        raise PhysFedError(f"unknown format '{form}'; there are: {', '.join(FORMATS)}")
    if form == "onnx":
        require_onnx()
    require_new(out)
    run = load_run(run_dir)
    denoiser = run.denoiser(client, protocol=protocol, policy=policy, device="cpu")
    if client is not None and denoiser.choice.policy != "own":
        raise PhysFedError(
            f"the run has no client '{client}'; it has: {', '.join(run.clients)}; for a scanner "
            f"that is no client, give --protocol {client}"
        )
    named = client or _name_of(run, denoiser.protocol)
    temporary = out.with_name(f".{out.name}.{uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        difference = _write(run, RunDirectory(run_dir), denoiser, form, named, temporary)
        temporary.replace(out)
    except OSError as error:
        raise PhysFedError(f"{out} cannot be written ({error}): give another --out") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(out, str(denoiser.choice), difference)


def require_new(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        PhysFedError: It does, or it is no folder of this machine.
    """
    if "://" in str(out) or (out.parts and out.parts[0].endswith(":")):
        raise PhysFedError(f"--out is a folder of this machine, not {out}: copy it from there")
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise PhysFedError(f"{out} is there already: give a new folder as --out, or remove it")
    except (OSError, ValueError) as error:
        raise PhysFedError(f"{str(out)[:60]!r} is no path: {error}") from None


def _name_of(run: TrainedRun, protocol: Protocol) -> str:
    """Return the name under which the run tested a protocol, "" if it did not."""
    return next((u.id for u in run.card.unseen if u.protocol == protocol), "")


def _write(
    run: TrainedRun,
    directory: RunDirectory,
    denoiser: Denoiser,
    form: str,
    named: str,
    folder: Path,
) -> float | None:
    """Write all files; return by how much a graph differs from its network."""
    module = HuToHu(denoiser)
    difference = _WRITERS[form](module, denoiser, run.round, folder)
    values = plain_values(denoiser, run.round)
    values["inputs"] = [
        {"name": i.name, "axes": list(i.shape), "dtype": str(i.dtype).removeprefix("torch.")}
        for i in module.inputs
    ]
    (folder / VALUES_FILE).write_text(json.dumps(values, indent=1) + "\n")
    window_hu = denoiser.card.window_hu
    record = read_record(directory, run.round, named, denoiser.choice, window_hu)
    if named in run.enrolled and (client := run.enrolled_client(named)) is not None:
        record = enrolled_record(client, record, window_hu)
    card = model_card(
        denoiser, record, module.inputs, form=form, number=run.round, difference=difference
    )
    (folder / CARD_FILE).write_text(str(card))
    return difference


def _write_safetensors(module: HuToHu, denoiser: Denoiser, number: int, folder: Path) -> None:
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in denoiser.network.state_dict().items()
    }
    metadata = {
        "format": "pt",
        "physfed_ray": __version__,
        "method": denoiser.method.name,
        "backbone": denoiser.method.task.backbone.name,
        "model": str(denoiser.choice),
        "round": str(number),
        "model_hash": denoiser.model_hash,
    }
    safetensors.torch.save_file(tensors, folder / WEIGHTS_FILE, metadata)
    for reference in denoiser.method.task.backbone.assets():
        asset = read_asset(reference)
        (folder / FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(asset.path, folder / FOLDER / asset.path.name)


def _write_torch(module: HuToHu, denoiser: Denoiser, number: int, folder: Path) -> float:
    path, program = folder / "model.pt2", make_graph(module)
    program.example_inputs = None  # they alone would be pickled
    try:
        torch.export.save(program, path)
    except Exception as error:  # the serialiser's own kinds
        raise PhysFedError(
            f"{denoiser.method.title} with {denoiser.method.task.backbone.label} makes a graph "
            f"that no .pt2 file can hold ({sentence(error)[:200]}): use --format safetensors"
        ) from error
    return largest_difference(module, torch.export.load(path).module())


def _write_onnx(module: HuToHu, denoiser: Denoiser, number: int, folder: Path) -> float | None:
    path = folder / "model.onnx"
    write_onnx(make_graph(module), module.inputs, path)
    run = onnx_runner(path)
    return None if run is None else largest_difference(module, run)


_WRITERS: dict[str, Callable[[HuToHu, Denoiser, int, Path], float | None]] = {
    "safetensors": _write_safetensors,
    "torch": _write_torch,
    "onnx": _write_onnx,
}

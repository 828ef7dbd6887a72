"""An exported folder as a denoiser: the same bits as from the run that it came of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from pydantic import ValidationError

from physfed_ray.assets.store import look_in
from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Reports
from physfed_ray.federation.client.inference import Inference
from physfed_ray.federation.flat import flat_network
from physfed_ray.reports.base import Described
from physfed_ray.rundir.assets import FOLDER
from physfed_ray.rundir.model import ModelCard
from physfed_ray.serving.choice import Choice
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.export.values import FORMAT, VALUES_FILE
from physfed_ray.serving.rebuild import fill, rebuild

WEIGHTS_FILE = "model.safetensors"


def load_exported(
    folder: str | Path, *, device: Literal["cpu", "cuda"] | None = None, threads: int | None = None
) -> Denoiser:
    """Load what ``physfed export --format safetensors`` wrote.

    Args:
        folder: The folder.
        device: By default CUDA where it is.
        threads: CPU threads; by default those of the run, whose bits it then gives.

    Raises:
        PhysFedError: It holds no such export, or one that this version cannot read.
    """
    folder = Path(folder)
    values, weights = _read_values(folder / VALUES_FILE), folder / WEIGHTS_FILE
    if not weights.is_file():
        raise PhysFedError(
            f"{folder} holds no {WEIGHTS_FILE}: give a folder that "
            "`physfed export --format safetensors` wrote"
        )
    try:
        card = ModelCard.model_validate(values["card"])
        choice = _choice(values["choice"])
        protocol = Protocol(**values["protocol"])
    except (ValidationError, KeyError, TypeError, ValueError, PhysFedError):
        raise PhysFedError(
            f"{folder / VALUES_FILE} cannot be read: export the run again, with this version of "
            "physfed_ray"
        ) from None
    look_in(folder / FOLDER)
    method = rebuild(card)
    network, states = flat_network(method, card.seed, "cpu")
    try:
        tensors = safetensors.torch.load_file(weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise PhysFedError(f"{weights} is damaged ({error}): export the run again") from None
    for state in states:
        if state.entries:
            fill(state, tensors, str(weights))
    network.requires_grad_(False).zero_grad(set_to_none=True)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    inference = Inference(method, network.to(where).eval(), where, card.precision)
    return Denoiser(card, inference, choice, protocol, _describer(card), threads)


def _describer(card: ModelCard) -> Callable[[np.ndarray], Described]:
    """Return what writes reports as the run wrote those that it trained on."""

    def describe(hu: np.ndarray) -> Described:
        from physfed_ray.data.scanning import HU_RANGE  # with the scanner, which little else needs

        shown = np.clip(np.rint(hu), *HU_RANGE).astype(np.float32)
        return Reports.model_validate(card.reports).make().describe(shown)

    return describe


def _read_values(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PhysFedError(
            f"{path} is not there: give a folder that `physfed export` wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise PhysFedError(f"{path} cannot be read ({error}): export the run again") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise PhysFedError(
            f"{path} is of no export that this version of physfed_ray knows: export the run again"
        )
    return values


def _choice(plain: dict[str, Any]) -> Choice:
    code = plain["code"]
    return Choice(
        plain["policy"],
        plain["client"],
        np.array(plain["g"], np.float32),
        cosine=plain["cosine"],
        distance=plain["distance"],
        code=None if code is None else np.array(code, np.float32),
    )

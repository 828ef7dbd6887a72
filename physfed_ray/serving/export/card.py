"""The model card of an export, ``README.md``: what the model is, and what nobody knows of it."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from physfed_ray import __version__
from physfed_ray.ct.protocol import Protocol
from physfed_ray.rundir.model import NamedProtocol
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.export.graph import TOLERANCE, Input
from physfed_ray.serving.export.record import Record, Score
from physfed_ray.serving.export.usage import snippet

_SOURCES = {
    "phantom": "computed phantoms, not patients; their low dose is simulated",
    "dicom": "CT images of patients at full dose; their low dose is simulated",
    "measured": "CT images of patients, measured at low and at full dose",
}
_FILES = {
    "onnx": ("model.onnx", "the network from HU to HU, for any number of images of any size"),
    "torch": ("model.pt2", "the same as a program of `torch.export`"),
    "safetensors": ("model.safetensors", "the weights by the names that the network gives them"),
}


def model_card(
    denoiser: Denoiser,
    record: Record,
    inputs: Sequence[Input],
    *,
    form: str,
    number: int,
    difference: float | None,
) -> ModelCard:
    """Return the card of an exported model.

    Args:
        denoiser: The model.
        record: What its run says of it.
        inputs: What it is called with.
        form: The export's format.
        number: The round that it was trained to.
        difference: The largest that the graph had from the network, as a share of the window;
            None where nothing was compared.
    """
    title = f"{denoiser.method.title}: {denoiser.choice}"
    parts = [
        f"# {title}",
        _introduction(denoiser, number, record.joined),
        _files(form, inputs, difference, denoiser),
        "## How to use it\n\n" + _usage(denoiser, inputs, form),
        "## What it was trained on\n\n" + _data(denoiser, record),
        "## How good it was\n\n" + _scores(record),
        "## What it is for\n\n" + _intended(denoiser),
        "## What was never tested\n\n" + _limits(record),
        "## Protocols\n\n" + _protocols(denoiser),
        "## Where it comes from\n\n" + _origin(denoiser),
    ]
    header = _header(denoiser, record, title)
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _header(denoiser: Denoiser, record: Record, title: str) -> ModelCardData:
    results = [
        EvalResult(
            task_type="image-to-image",
            task_name="low-dose CT denoising",
            dataset_type=record.source or "unknown",
            dataset_name=f"{record.source or 'unknown'} data, {record.split}",
            metric_type=score.name.partition("[")[0],
            metric_name=_with_unit(score),
            metric_value=round(score.after, 6),
        )
        for score in record.scores
    ]
    return ModelCardData(
        library_name="physfed_ray",
        pipeline_tag="image-to-image",
        tags=["computed-tomography", "low-dose-ct", "denoising", "federated-learning",
              denoiser.method.name, denoiser.method.task.backbone.name],
        model_name=title if results else None,
        eval_results=results or None,
    )  # fmt: skip


def _introduction(denoiser: Denoiser, number: int, joined: str) -> str:
    card, method, backbone = denoiser.card, denoiser.method, denoiser.method.task.backbone
    low, high = card.window_hu
    return (
        f"A network that reduces the noise of low-dose CT images, trained for {number} rounds by "
        f"federated learning with {method.title} ({method.paper}) among {len(card.clients)} "
        f"simulated clients. The network is {backbone.title} ({backbone.paper}; "
        f"{backbone.label}). This is {denoiser.choice}.{joined and ' ' + joined}\n\n"
        f"Images go in and come out in HU. The network sees HU from {low:g} to {high:g}; a pixel "
        "outside of that comes back unchanged. **Not for clinical use.**"
    )


def _files(form: str, inputs: Sequence[Input], difference: float | None, denoiser: Denoiser) -> str:
    name, meaning = _FILES[form]
    lines = [
        "| file | what it holds |\n|---|---|",
        f"| `{name}` | {meaning} |",
        "| `model.json` | window, statistics, protocols, the code that the network is told, and "
        "how a protocol becomes what the network reads |",
    ]
    text = "\n".join(lines)
    if form != "safetensors":
        rows = "\n".join(
            f"| `{i.name}` | {', '.join(map(str, i.shape))} | "
            f"{str(i.dtype).removeprefix('torch.')} | {i.meaning} |"
            for i in inputs
        )
        text += f"\n\n| input | axes | type | what it is |\n|---|---|---|---|\n{rows}"
        text += "\n\n" + _compared(difference)
    if denoiser.card.precision == "bf16":
        text += (
            "\n\nThe run computed in bfloat16. The weights are float32"
            + (", and so is this graph's arithmetic: its images differ from the run's in what "
               "bfloat16 rounds." if form != "safetensors" else
               "; loaded through `physfed_ray`, the network computes in bfloat16 as it did there.")
        )  # fmt: skip
    return text


def _compared(difference: float | None) -> str:
    if difference is None:
        return (
            "This file was not compared with the network it was made of, because `onnxruntime` "
            "was not installed."
        )
    return (
        "When it was written, this file was compared with the network it was made of at sizes "
        f"other than the one it was made with: the largest difference was {difference:.1e} of the "
        f"window (allowed: {TOLERANCE:.0e})."
    )


def _usage(denoiser: Denoiser, inputs: Sequence[Input], form: str) -> str:
    card = denoiser.card
    names = [f"`{wanted.name}.npy`" for wanted in inputs]
    arrays = " and ".join([", ".join(names[1:-1]), names[-1]] if names[2:] else names[1:])
    beside = f", and what else the network reads in {arrays}" if arrays else ""
    packages = {"onnx": "`numpy` and `onnxruntime`", "torch": "`numpy` and `torch`",
                "safetensors": f"`physfed_ray` {__version__} or later"}[form]  # fmt: skip
    text = (
        f"In this folder, with {packages} installed and your images in `slices.npy`{beside}:\n\n"
        f"```python\n{snippet(form, inputs, card.image_size)}```\n\n"
        f"The network was trained on images of {card.image_size} x {card.image_size} pixels of "
        f"{denoiser.protocol.pixel_at(card.image_size):.4g} mm. It takes other sizes, but what it "
        "makes of pixels of another length was not measured."
    )
    if form == "safetensors":
        text += (
            " Give `spacing_mm=(row, column)` beside slices of another matrix: see the "
            "documentation of `Denoiser`."
        )
    if denoiser.reads_report:
        encoder = card.reports.get("encoder", {}).get("name", "?")
        reporter = card.reports.get("reporter", {}).get("name", "?")
        text += (
            f"\n\nThe network reads a report of each image: the text of the reporter "
            f"`{reporter}`, embedded by `{encoder}` in {card.statistics.tokens} x "
            f"{card.statistics.dim} numbers. `load_run(...).describe(hu)` of `physfed_ray` makes "
            "them. Without a report, give zeros and a mask that is False everywhere; what the "
            "network then makes of an image was not measured."
        )
    return text


def _data(denoiser: Denoiser, record: Record) -> str:
    kind = _SOURCES.get(record.source, record.source)
    if not record.source:
        return "The run has not finished, so it says nothing of its data yet."
    text = f"The data are {kind}."
    if record.counts:
        rows = "\n".join(
            f"| {part} | {held['patients']} | {held['slices']} |"
            for part, held in record.counts.items()
        )
        text += f"\n\n| part | patients | slices |\n|---|---|---|\n{rows}"
    return text + "\n\nNothing here names a patient, and no image is in this folder."


def _scores(record: Record) -> str:
    if not record.scores:
        return "The run did not measure this model on images of this scanner."
    rows = "\n".join(
        f"| {_with_unit(s)} | {_number(s.before, s)} | {_number(s.after, s)} |"
        for s in record.scores
    )
    when = "when the client was enrolled" if record.joined else "of the run's last evaluation"
    return (
        f"Means over the images of `{record.split}`, {when}. The brackets "
        "hold the window in HU to which images are clipped first; numbers of different windows "
        f"cannot be compared.\n\n| metric | low dose | denoised |\n|---|---|---|\n{rows}"
    )


def _with_unit(score: Score) -> str:
    return f"{score.name} ({score.unit})" if score.unit else score.name


def _number(value: float | None, score: Score) -> str:
    return "-" if value is None else f"{value:.{score.decimals}f}"


def _intended(denoiser: Denoiser) -> str:
    served = {
        "own": "the scanner and the protocol of this client",
        "shared": "any scanner whose protocol is like those below",
        "pvqs": "the protocol that it was chosen for, whose nearest client lent its decoder",
        "nearest_protocol": "the protocol that it was chosen for, as its nearest client's model",
    }[denoiser.choice.policy]
    return (
        "Research on federated learning and on denoising. It is meant for axial CT images of "
        f"{served}. It is not a medical device; do not use it to diagnose or to treat anybody."
    )


def _limits(record: Record) -> str:
    dose = (
        ""
        if record.source == "measured"
        else "- **Real low dose.** The noise was simulated; no scan at a low dose was measured.\n"
    )
    return (
        "- **Readers.** No radiologist has judged its images.\n"
        "- **Lesions.** Nobody has counted which lesions it blurs, removes or invents.\n"
        f"{dose}"
        "- **Other scanners.** Other reconstruction kernels, slice thicknesses, metal, contrast "
        "agents and body regions than those of the training data.\n"
        "- **Privacy.** The weights were trained on patients' images; what an attacker can learn "
        "from them was not measured."
    )


def _protocols(denoiser: Denoiser) -> str:
    card = denoiser.card
    keys = [*denoiser.protocol.values()]
    named = [NamedProtocol(id="this model's images", protocol=denoiser.protocol), *card.clients]
    keys = list(dict.fromkeys(key for part in named for key in part.protocol.values()))
    rows = [_row(part.id, part.protocol, keys) for part in named]
    return (
        "How the images were scanned that this model is for, and those of every client of the "
        f"run. The keys are those of `physfed protocols`, lengths are in mm.\n\n"
        f"| | {' | '.join(keys)} |\n|---{'|---' * len(keys)}|\n" + "\n".join(rows)
    )


def _row(name: str, protocol: Protocol, keys: Sequence[str]) -> str:
    values: dict[str, Any] = {key: getattr(protocol, key) for key in keys}
    cells = (v if isinstance(v, str) else f"{v:g}" for v in values.values())
    return f"| {name} | {' | '.join(cells)} |"


def _origin(denoiser: Denoiser) -> str:
    card = denoiser.card
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    commit = f" (commit {card.git_commit})" if card.git_commit else ""
    return (
        f"Model hash `{denoiser.model_hash}`. Exported by physfed_ray {__version__}. Trained, and "
        f"its low dose simulated where it was, with {versions or 'versions unknown'}{commit}. "
        "State a licence here before you pass this folder on."
    )

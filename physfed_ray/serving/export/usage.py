"""The code of an export's card: how each format is loaded and used."""

from collections.abc import Sequence

from physfed_ray.serving.export.graph import Input

_ONNX = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
inputs = {{
    "hu": np.load("slices.npy").astype(np.float32),  # (N, height, width) in HU
{further}}}
(denoised,) = session.run(None, inputs)  # (N, height, width) in HU
np.save("denoised.npy", denoised)
"""

_TORCH = """\
import numpy as np
import torch

denoise = torch.export.load("model.pt2").module()
inputs = {{
    "hu": np.load("slices.npy").astype(np.float32),  # (N, height, width) in HU
{further}}}
denoised = denoise(*(torch.from_numpy(array) for array in inputs.values()))
np.save("denoised.npy", denoised.numpy())
"""

_SAFETENSORS = """\
import numpy as np

from physfed_ray.serving.export.load import load_exported

denoiser = load_exported(".")
hu = np.load("slices.npy")  # (N, {size}, {size}) in HU, over the scanner's field of view
denoised = denoiser(hu{further})
np.save("denoised.npy", denoised)
"""

FURTHER = {"embedding": "embedding=np.load('embedding.npy')", "mask": "mask=np.load('mask.npy')"}


def snippet(form: str, inputs: Sequence[Input], image_size: int) -> str:
    """Return a program that denoises ``slices.npy`` in the folder of an export.

    Args:
        form: The export's format.
        inputs: What the network reads; those beside the images lie in files of their names.
        image_size: Side of the run's images in pixels.
    """
    own = inputs[1:]
    if form == "safetensors":
        words = [FURTHER[i.name].replace("'", '"') for i in own if i.name in FURTHER]
        fields = [f'"{i.name}": np.load("{i.name}.npy")' for i in own if i.name not in FURTHER]
        words += [f"fields={{{', '.join(fields)}}}"] if fields else []
        return _SAFETENSORS.format(size=image_size, further="".join(f", {word}" for word in words))
    lines = [f'    "{i.name}": np.load("{i.name}.npy"),  # {_shape(i)}\n' for i in own]
    template = _ONNX if form == "onnx" else _TORCH
    return template.format(further="".join(lines))


def _shape(wanted: Input) -> str:
    axes = ", ".join("N" if axis == "batch" else str(axis) for axis in wanted.shape)
    return f"({axes}) {str(wanted.dtype).removeprefix('torch.')}: {wanted.meaning}"

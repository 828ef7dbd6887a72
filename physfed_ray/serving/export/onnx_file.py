"""The ONNX file of a graph, and what ONNX Runtime makes of it."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from physfed_ray.errors import PhysFedError
from physfed_ray.serving.export.graph import Input

PACKAGES = ("onnx", "onnxscript")
OUTPUT = "denoised"


def require_onnx() -> None:
    """Refuse where the packages that write ONNX are missing.

    Raises:
        PhysFedError: One is.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise PhysFedError(
            f"--format onnx needs {' and '.join(missing)}: pip install 'physfed_ray[export]'"
        )


def write_onnx(
    program: torch.export.ExportedProgram, inputs: tuple[Input, ...], path: Path
) -> None:
    """Write a graph, weights included, as one ONNX file.

    Args:
        program: The graph.
        inputs: Its inputs, whose names and axes the file tells.
        path: The file.
    """
    import onnx_ir  # with onnxscript

    with _quiet():
        made = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            input_names=[wanted.name for wanted in inputs],
            output_names=[OUTPUT],
        )
        assert made is not None  # of dynamo=True
        for value, wanted in zip(made.model.graph.inputs, inputs, strict=True):
            value.shape = onnx_ir.Shape(wanted.shape)  # "batch" for "s77"
        (output,) = made.model.graph.outputs
        output.shape = onnx_ir.Shape(inputs[0].shape)
        made.save(path, external_data=False)


def onnx_runner(path: Path) -> Callable[..., Tensor] | None:
    """Return a function that runs an ONNX file, None where ONNX Runtime is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [wanted.name for wanted in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of packages that nobody asked for to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

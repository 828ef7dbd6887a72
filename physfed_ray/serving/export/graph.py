"""A denoiser as one torch module from HU to HU, and as a graph for images of any size.

The window, the statistics, the protocol and the code are constants of the module, so whoever runs
it needs nothing else. It computes in float32, also where the run computed in bfloat16.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import PhysFedError, sentence
from physfed_ray.fields import Batch, Field, Sizes, extra_fields, field_of
from physfed_ray.methods.base import Method
from physfed_ray.serving.denoiser import Denoiser

Shape = tuple[int, int, int]
"""Images, rows and columns."""

TRACED: Shape = (3, 48, 80)
"""What a graph is made with: no two numbers alike, so that none can stand for another."""

CHECKED: tuple[Shape, ...] = ((1, 64, 64), (2, 37, 101), (5, 130, 47))
"""What a graph is compared at: odd, not square, other batches."""

TOLERANCE = 1e-4
"""Largest difference from the network that a graph may have, on the scale of the window."""


@dataclass(frozen=True)
class WholeImages(Batch):
    """A batch of whole images, which need not be square."""

    @property
    def whole(self) -> tuple[int, int]:
        """See ``Batch``."""
        return self.low.shape[-2], self.low.shape[-1]


@dataclass(frozen=True)
class Input:
    """One input of a graph.

    Attributes:
        name: Its name.
        shape: Its axes in words or numbers, such as ``("batch", "height", "width")``.
        dtype: Of its numbers.
        meaning: What it holds, for the card.
    """

    name: str
    shape: tuple[str | int, ...]
    dtype: torch.dtype
    meaning: str

    def example(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Return random numbers for images of a shape."""
        sizes = dict(zip(("batch", "height", "width"), shape, strict=True))
        axes = [sizes[axis] if isinstance(axis, str) else axis for axis in self.shape]
        if self.name == "hu":
            return torch.rand(axes, generator=generator) * 4000 - 1500
        if self.dtype == torch.bool:
            return torch.rand(axes, generator=generator) < 0.75
        return torch.rand(axes, generator=generator).to(self.dtype)


class HuToHu(nn.Module):
    """What ``Denoiser.__call__`` does, as a module: HU in, HU out.

    Args:
        denoiser: Whose network it is; the network is copied.

    Attributes:
        inputs: What it is called with, in this order.
        method: The run's.
        window_hu: The run's.
    """

    g: Tensor
    entry: Tensor | None

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.method: Method = denoiser.method
        self.window_hu, statistics = denoiser.card.window_hu, denoiser.card.statistics
        self._tokens = statistics.tokens, statistics.dim
        self.network = copy.deepcopy(denoiser.network).cpu().float().eval()
        choice = denoiser.choice
        self._protocol = choice.protocol
        self.register_buffer("g", torch.tensor(choice.g))
        self.register_buffer("entry", None if choice.code is None else torch.tensor(choice.code))
        sizes = Sizes(denoiser.card.image_size, *self._tokens)
        self.inputs = (HU, *_further_inputs(self.method, sizes, denoiser.protocol))

    def forward(self, hu: Tensor, *further: Tensor) -> Tensor:
        """Denoise.

        Args:
            hu: (B, h, w) float32, HU. A pixel outside the window comes back as it was.
            further: The other ``inputs``.

        Returns:
            (B, h, w) float32, HU.
        """
        low, high = self.window_hu
        x = ((hu - low) / (high - low)).clamp(0, 1).unsqueeze(1)
        batch = self._batch(x, dict(zip((i.name for i in self.inputs[1:]), further, strict=True)))
        denoised = self.method.denoise(self.network, batch, self.entry).float().squeeze(1)
        denoised = denoised.clamp(0, 1) * (high - low) + low
        return torch.where((hu < low) | (hu > high), hu, denoised)

    def _batch(self, x: Tensor, given: Mapping[str, Tensor]) -> Batch:
        count = x.shape[0]
        extra = {
            name: tensor.unsqueeze(1) if _is_image(field_of(name)) else tensor
            for name, tensor in given.items()
            if name not in ("embedding", "mask")
        }
        return WholeImages(
            low=x,
            full=x,  # what is not there; nothing looks at it
            g=self.g.expand(count, -1),
            embedding=given.get("embedding", x.new_zeros(count, *self._tokens)),
            embedding_mask=given.get("mask", x.new_ones(count, self._tokens[0], dtype=torch.bool)),
            origin=x.new_zeros(count, 2, dtype=torch.int64),
            image_size=x.shape[-2],
            extra=extra,
            protocol=self._protocol,
        )


HU = Input("hu", ("batch", "height", "width"), torch.float32, "images in HU")


def _is_image(field: Field) -> bool:
    return field.crop == "image"


def _further_inputs(method: Method, sizes: Sizes, protocol: Protocol) -> list[Input]:
    """Return what a method and its backbone read beside the images."""
    found = []
    if "embedding" in method.reads():
        meaning = "the embedding of each image's report, not standardised"
        found = [
            Input("embedding", ("batch", sizes.tokens, sizes.dim), torch.float32, meaning),
            Input("mask", ("batch", sizes.tokens), torch.bool, "True where a token is real"),
        ]
    for name in extra_fields((*method.task.backbone.fields, *method.reads())):
        field = field_of(name)
        own = ("height", "width") if _is_image(field) else field.shape(sizes, protocol)
        dtype = torch.from_numpy(_empty(field)).dtype
        found.append(Input(name, ("batch", *own), dtype, f"the field '{name}' of each image"))
    return found


def _empty(field: Field) -> np.ndarray:
    return np.empty(0, field.dtype)


def make_graph(module: HuToHu) -> torch.export.ExportedProgram:
    """Return the module as a graph for any number of images of any size.

    Raises:
        PhysFedError: It cannot be one.
    """
    method = module.method
    front_end = method.task.front_end
    if front_end.fields or not front_end.of_images:
        raise PhysFedError(
            f"the run's network reads what its front end, {front_end.title}, makes from sinograms, "
            "and a graph reads images: use --format safetensors"
        )
    for part in (method, method.task.backbone):
        if part.no_graph:
            raise PhysFedError(
                f"{part.title} cannot be exported as a graph, because {part.no_graph}: "
                "use --format safetensors"
            )
    axes = [
        {n: torch.export.Dim.DYNAMIC for n, axis in enumerate(i.shape) if isinstance(axis, str)}
        for i in module.inputs
    ]
    further = [tuple(axes[1:])] if len(axes) > 1 else []
    examples = example_inputs(module, TRACED)
    try:
        with torch.no_grad():
            program = torch.export.export(
                module, examples, dynamic_shapes=(axes[0], *further), strict=False
            )
    except Exception as error:  # whatever a network of somebody's does inside an exporter
        raise PhysFedError(
            f"{method.title} with {method.task.backbone.label} cannot be exported as a graph for "
            f"images of any size ({sentence(error)[:200]}): use --format safetensors"
        ) from error
    return program


def example_inputs(module: HuToHu, shape: Shape) -> tuple[Tensor, ...]:
    """Return random inputs for images of a shape, the same every time."""
    generator = torch.Generator().manual_seed(sum(shape))
    return tuple(wanted.example(shape, generator) for wanted in module.inputs)


def largest_difference(module: HuToHu, run: Callable[..., Tensor]) -> float:
    """Return by how much a graph differs from the module it was made of.

    Args:
        module: The module.
        run: The graph: takes the module's inputs.

    Returns:
        The largest absolute difference at every size of ``CHECKED``, on the scale of the window.

    Raises:
        PhysFedError: It fails at one of the sizes, or differs by more than ``TOLERANCE``.
    """
    low, high = module.window_hu
    worst = 0.0
    for shape in CHECKED:
        inputs = example_inputs(module, shape)
        title = f"{module.method.title} with {module.method.task.backbone.label}"
        try:
            with torch.inference_mode():
                difference = (run(*inputs) - module(*inputs)).abs().max() / (high - low)
        except Exception as error:  # the runtime's own kinds
            raise PhysFedError(
                f"the graph of {title} fails for images of the shape {shape} "
                f"({sentence(error)[:200]}): use --format safetensors"
            ) from error
        worst = max(worst, float(difference))
        if not worst <= TOLERANCE:
            raise PhysFedError(
                f"the graph of {title} differs from the network by {worst:.2g} of the window for "
                f"images of the shape {shape}: use --format safetensors"
            )
    return worst

"""What a training step costs: time and memory of one small patch scaled up, and its FLOPs."""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from physfed_ray.cost.operations import Operations
from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.device import torch_threads
from physfed_ray.experiment import Training
from physfed_ray.federation.flat import FlatState, private_parts
from physfed_ray.fields import Batch, Field, Sizes, field_of
from physfed_ray.methods.base import Method
from physfed_ray.methods.given import ClientInfo, RoundInput
from physfed_ray.models.base import DiffusionBackbone

PROBE = 64
"""Side of the patch that is timed, pixels: large enough for a steady time, done in a second."""

PROBE_PROTOCOL = PRESETS["paper-1"]
"""Decides the size of fields that depend on the protocol; it has the most views of the paper's.
A learned front end is measured under that of the experiment's with the most readings instead."""


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step.

    Attributes:
        seconds: Time on this machine, with the experiment's threads.
        activation_bytes: Memory that the backward pass keeps, in float32.
        image_flops: Floating point operations of one image's (or patch's) forward and backward
            pass; a multiplication and an addition are two.
        frozen_bytes: Memory of the networks that the objective needs.
        denoise_flops: Operations of denoising one whole image by a diffusion network, all of its
            steps; 0 for another network, which denoises by the forward pass of its training.
    """

    seconds: float
    activation_bytes: float
    image_flops: int
    frozen_bytes: float = 0.0
    denoise_flops: int = 0


def network_sizes(method: Method) -> tuple[int, int, int]:
    """Return the float32 numbers of the shared part, of the private part, and of all codes."""
    network = method.build(0)
    private = private_parts(network, method.shared)
    codes = _codes(method, network)
    sizes = [FlatState(network, part).vector.numel() for part in (method.shared, private)]
    return sizes[0], sizes[1], 0 if codes is None else codes.numel()


def measure_step(method: Method, training: Training, image_size: int) -> StepCost:
    """Time the forward and backward pass of one patch, and scale to the experiment's batch.

    The operations are counted at the full size.

    Args:
        method: The method with its task.
        training: Patch, batch size and threads are used.
        image_size: Side of the whole image, pixels.
    """
    side = training.patch or image_size
    uncut = any(field_of(name).crop == "none" for name in method.extra_fields)
    probe = side if uncut else min(side, max(PROBE, method.objective.smallest_side))
    scale = training.batch_size * (side / probe) ** 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = method.build(0)
    codes = _codes(method, network)
    published = method.publish(probe_batch(method, probe, "cpu"))
    collected = method.collect([published] * method.task.clients)
    extras = {f"published.{name}": array for name, array in collected.items()}
    if codes is not None:
        extras["codes"] = codes.numpy()
    network = network.to(device).train()
    method.objective.prepare(device)
    state = _begin(method, network, extras)
    batch = probe_batch(method, probe, device)
    with torch_threads(training.threads):
        with Operations() as operations:
            _step(method, network, batch, state)
        seconds, kept = _step(method, network, batch, state)
    # Tensors without content import what torch.compile needs, which takes as long as torch itself.
    flops = operations.total if side == probe else _flops(method, side, extras)
    frozen = sum(p.nbytes for p in _frozen(method))
    samples = isinstance(method.task.backbone, DiffusionBackbone)
    sampled = _denoise_flops(method, image_size) if samples else 0
    return StepCost(seconds * scale, kept * scale, flops, frozen, sampled)


def _frozen(method: Method) -> list[nn.Parameter]:
    """Return the parameters of the objective's networks, once they are prepared."""
    return [p for module in method.objective.frozen().values() for p in module.parameters()]


def _flops(method: Method, side: int, extras: Mapping[str, np.ndarray]) -> int:
    """Count the operations of one image's forward and backward pass without computing them."""
    method = copy.copy(method)
    method.objective = copy.copy(method.objective)  # its networks are not copied but made again
    operations = Operations()
    with FakeTensorMode(), operations:
        method.objective.prepare("cpu")
        network = method.build(0).train()
        state = _begin(method, network, extras)
        loss, _ = method.loss(network, probe_batch(method, side, "cpu"), state)
        torch.autograd.backward(loss)
    return operations.total


def _denoise_flops(method: Method, side: int) -> int:
    """Count the operations of denoising one image without computing them."""
    operations = Operations()
    with FakeTensorMode(), torch.no_grad(), operations:
        method.denoise(method.build(0).eval(), probe_batch(method, side, "cpu"))
    return operations.total


def _scanner(method: Method) -> Protocol | None:
    """Return the scanner under which a learned front end is measured, None without one."""
    task = method.task
    if task.scanners is None or not task.front_end.fields:
        return None
    return max(task.scanners.protocols, key=lambda protocol: protocol.views * protocol.bins)


def _begin(method: Method, network: nn.Module, extras: Mapping[str, np.ndarray]) -> object:
    client = ClientInfo(0, "probe", _scanner(method) or PROBE_PROTOCOL, 1)
    return method.begin(network, RoundInput(1, client, np.zeros(0, np.float32), extras))


def _codes(method: Method, network: nn.Module) -> Tensor | None:
    with torch.no_grad():
        return method.codes(network, torch.rand(method.task.clients, method.task.g_size))


def probe_batch(method: Method, side: int, device: str) -> Batch:
    """Return a batch of one random image (or patch) of a size in pixels."""
    task = method.task
    images = torch.rand(1, 1, side, side, device=device)
    sizes = Sizes(task.image_size, task.tokens, task.dim)
    scanner = _scanner(method)
    protocol = scanner or PROBE_PROTOCOL
    return Batch(
        low=images,
        full=images,
        g=torch.full((1, task.g_size), 0.5, device=device),
        embedding=torch.zeros(1, task.tokens, task.dim, device=device),
        embedding_mask=torch.ones(1, task.tokens, dtype=torch.bool, device=device),
        origin=torch.zeros(1, 2, dtype=torch.int64, device=device),
        image_size=task.image_size,
        extra={
            name: _probe_field(field_of(name), sizes, side, protocol).to(device)
            for name in method.extra_fields
        },
        protocol=scanner,
    )


def _probe_field(field: Field, sizes: Sizes, side: int, protocol: Protocol) -> Tensor:
    """Return ones as a batch of one patch has them."""
    shape = field.shape(sizes, protocol)
    if field.crop == "image":
        shape = (*(shape[:-2] or (1,)), side, side)
    return torch.from_numpy(np.ones((1, *shape), field.dtype))


def _step(method: Method, network: nn.Module, batch: Batch, state: object) -> tuple[float, int]:
    """Return the seconds and the bytes kept for the backward pass."""
    kept: dict[int, int] = {}
    parameters = [*network.parameters(), *_frozen(method)]
    weights = {p.untyped_storage().data_ptr() for p in parameters}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    began = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = method.loss(network, method.read(network, batch), state)
    torch.autograd.backward(loss)
    loss.item()
    return time.perf_counter() - began, sum(kept.values())

"""What this process computes on, in words, and what it is made for."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from physfed_ray.errors import PhysFedError


def device_words(device: str) -> str:
    """Name the device (``cpu`` or ``cuda``) of this machine in words."""
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name())
    names = [line for line in _cpu_info().splitlines() if line.startswith("model name")]
    model = names[0].split(":", 1)[1].strip() if names else platform.machine()
    return f"CPU, {len(names) or 'unknown'} cores ({model})"


def resolve_precision(
    wanted: Literal["fp32", "bf16", "auto"], device: str
) -> Literal["fp32", "bf16"]:
    """Return the precision: ``auto`` is bf16 on GPUs, and on CPUs with instructions for it."""
    if wanted != "auto":
        return wanted
    made_for_it = torch.device(device).type == "cuda" or "bf16" in _cpu_info()
    return "bf16" if made_for_it else "fp32"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many torch threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def enough_memory(name: str) -> Iterator[None]:
    """Say in one sentence that a host wants more of a GPU's memory than its share.

    Args:
        name: Of the host, with its clients.

    Raises:
        PhysFedError: It did.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PhysFedError(
            f"{name} ran out of its share of the GPU's memory: raise federation.gpus_per_host, or "
            "lower training.batch_size, training.patch or backbone.channels"
        ) from error


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""

"""Step 2, first half: what the machine itself reaches."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gpu_steps.setting import Setting

FLOAT32_MODES = {"fp32": "highest", "TF32": "high"}


def run(setting: Setting) -> None:
    """Run the step."""
    size = setting.size(2**28, 2**16)  # floats: 1 GiB
    source = torch.ones(size, device=setting.device)
    target = torch.empty_like(source)
    seconds = setting.seconds(lambda: target.copy_(source), 10)
    moved = 2 * 4 * size / seconds / 1e9
    setting.record.measured("ceilings", "machine", what="copy, GB/s read and written", value=moved)
    for name in ("bf16", *FLOAT32_MODES):
        rate = product_rate(setting, name) / 1e12
        what = f"matrix product in {name}, TFLOP/s"
        setting.record.measured("ceilings", "machine", what=what, value=rate)


def product_rate(setting: Setting, name: str) -> float:
    """Return the operations a second of a square matrix product of random numbers.

    Args:
        setting: Where.
        name: ``bf16``, ``TF32`` or ``fp32``.
    """
    n = setting.size(8192, 64)
    kind = torch.bfloat16 if name == "bf16" else torch.float32
    a, b = torch.randn(2, n, n, device=setting.device, dtype=kind)
    with float32_mode(FLOAT32_MODES.get(name, "highest")):
        return 2 * n**3 / setting.seconds(lambda: a @ b, setting.size(10, 2))


@contextmanager
def float32_mode(mode: str) -> Iterator[None]:
    """Compute float32 products in a mode of torch's for a while."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(mode)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

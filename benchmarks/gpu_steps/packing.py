"""Step 4: many clients as hosts of one GPU, in turn, and the cap on a host's memory."""

import subprocess
import sys
import time

import torch

from gpu_steps.record import ROOT
from gpu_steps.setting import Setting
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.orders import ClientTurn, Order
from physfed_ray.runtime.inline import InlineRuntime

CAPPED = """
import torch
from physfed_ray.device import enough_memory
with enough_memory("host-0:c1"):
    if not torch.cuda.is_available():
        raise torch.OutOfMemoryError("a dry run has no GPU to fill")
    torch.cuda.set_per_process_memory_fraction(0.02)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.empty(int(0.03 * total), dtype=torch.uint8, device="cuda")
"""
FULL = 0.8
"""Share of the GPU's memory that hosts may take here."""


def run(setting: Setting) -> None:
    """Run the step."""
    each = 0.0
    for hosts in (1, 8, 64)[: setting.size(3, 2)]:
        if setting.device == "cuda" and each * hosts > FULL * torch.cuda.mem_get_info()[1]:
            told = {"result": f"{hosts} would not fit: {each / 2**20:.0f} MiB each"}
        else:
            told, each = pack(setting, hosts)
        setting.record.measured("packing", "hosts of one GPU, in turn", hosts=hosts, **told)
    cap(setting)


def pack(setting: Setting, hosts: int) -> tuple[dict[str, object], float]:
    """Train a step on each of so many hosts, twice; return what was seen and bytes a host."""
    size, batch = setting.size(256, 32), setting.size(20, 2)
    spec = setting.federation(
        "scan_physfed",
        size=size,
        channels=setting.size(96, 2),
        clients=hosts,
        slices=batch,
        batch_size=batch,
    )
    on_gpu = setting.device == "cuda"
    before = torch.cuda.memory_allocated() if on_gpu else 0
    runtime = InlineRuntime(spec, hosts)
    seconds = 0.0
    for number in (1, 2):  # the first one warms up
        given = runtime.publish()
        orders = {
            host: (_order(number, clients[0]), given)
            for host, clients in enumerate(runtime.assignment)
        }
        began = time.perf_counter()
        answers = runtime.train(orders, None)
        setting.wait()
        seconds = time.perf_counter() - began
        missing = [r.missing for answer in answers.values() for r in answer[0] if r.missing]
        if missing:
            raise PhysFedError(f"{len(missing)} of {hosts} clients are missing: {missing[0]}")
    held = (torch.cuda.memory_allocated() - before) / hosts if on_gpu else 0.0
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    told = {
        "mib_a_host": held / 2**20,
        "gib_at_most": peak / 2**30,
        "slices_per_s": hosts * batch / seconds,
        "result": "trained",
    }
    del runtime
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return told, held


def _order(number: int, client: int) -> Order:
    turn = ClientTurn(client, number - 1)
    return Order(number, 1e-3, (client,), (turn,), (0,), save=False)


def cap(setting: Setting) -> None:
    """Let a process take more than its share, and check that it is told so."""
    ended = subprocess.run(
        [sys.executable, "-c", CAPPED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    held = ended.returncode != 0 and "ran out of its share of the GPU's memory" in ended.stderr
    setting.record.measured("packing", "cap on memory", what="a host beyond its share", told=held)
    if not held:
        raise PhysFedError(f"the cap on a host's memory did not hold: {ended.stderr[-300:]}")

"""Machine types that clouds rent out, and what part of an experiment fits on one.

Sizes are those of the clouds' public instance tables, peaks those of NVIDIA's data sheets, dense
(without sparsity).
"""

import math
from dataclasses import dataclass

GIB = 2**30
UTILISATION = 0.3
"""Assumed share of the peak that training reaches; convolutions of few channels reach less."""
CUDA_CONTEXT_BYTES = 0.5e9
"""GPU memory of a process before its first tensor."""


@dataclass(frozen=True)
class Machine:
    """A machine type.

    Attributes:
        name: As the cloud calls it.
        cloud: Who rents it out.
        gpu: What its GPUs are.
        gpus: How many it has.
        gpu_gib: Memory of one, GiB.
        cpus: Virtual CPUs.
        memory_gib: Main memory, GiB.
        bf16_tflops: Peak of one GPU in bfloat16, TFLOP/s; float32's where it has none.
        fp32_tflops: Peak of convolutions on float32 tensors, TFLOP/s: TF32 where it has that.
    """

    name: str
    cloud: str
    gpu: str
    gpus: int
    gpu_gib: float
    cpus: int
    memory_gib: float
    bf16_tflops: float
    fp32_tflops: float


MACHINES = (
    Machine("g4dn.xlarge", "AWS", "T4", 1, 15, 4, 16, 8.1, 8.1),
    Machine("g5.xlarge", "AWS", "A10G", 1, 22, 4, 16, 70, 35),
    Machine("g5.12xlarge", "AWS", "A10G", 4, 22, 48, 192, 70, 35),
    Machine("g6.12xlarge", "AWS", "L4", 4, 22, 48, 192, 121, 60),
    Machine("p4d.24xlarge", "AWS", "A100 40 GB", 8, 40, 96, 1152, 312, 156),
    Machine("p5.48xlarge", "AWS", "H100 80 GB", 8, 80, 192, 2048, 989, 495),
    Machine("g2-standard-48", "GCP", "L4", 4, 22, 48, 192, 121, 60),
    Machine("a2-highgpu-8g", "GCP", "A100 40 GB", 8, 40, 96, 680, 312, 156),
    Machine("a3-highgpu-8g", "GCP", "H100 80 GB", 8, 80, 208, 1872, 989, 495),
    Machine("NC24ads_A100_v4", "Azure", "A100 80 GB", 1, 80, 24, 220, 312, 156),
    Machine("NC40ads_H100_v5", "Azure", "H100 94 GB", 1, 93, 40, 320, 835, 417),
    Machine("ND96isr_H100_v5", "Azure", "H100 80 GB", 8, 80, 96, 1900, 989, 495),
)


@dataclass(frozen=True)
class Need:
    """What an experiment asks of a machine.

    Attributes:
        gpu_bytes: GPU memory of a host, its CUDA context included.
        host_bytes: Main memory of a host.
        threads: CPUs of a host.
        flops: Floating point operations of the whole training.
        bf16: Whether it trains in bfloat16.
    """

    gpu_bytes: float
    host_bytes: float
    threads: int
    flops: float
    bf16: bool


@dataclass(frozen=True)
class Fit:
    """What of an experiment fits on a machine.

    Attributes:
        per_gpu: Hosts on one GPU by its memory alone.
        hosts: Hosts on the machine, so many clients train at once.
        limit: What allows no more: ``GPU memory``, ``CPUs`` or ``memory``.
        gpu_hours: GPU hours of the whole training.
    """

    per_gpu: int
    hosts: int
    limit: str
    gpu_hours: float


def fit(machine: Machine, need: Need) -> Fit:
    """Return how many hosts a machine carries, and the GPU hours of the training on it."""
    per_gpu = math.floor(machine.gpu_gib * GIB / need.gpu_bytes)
    rooms = {
        "GPU memory": per_gpu * machine.gpus,
        "CPUs": machine.cpus // need.threads,
        "memory": math.floor(machine.memory_gib * GIB / need.host_bytes),
    }
    limit = min(rooms, key=rooms.__getitem__)
    peak = machine.bf16_tflops if need.bf16 else machine.fp32_tflops
    return Fit(per_gpu, rooms[limit], limit, need.flops / (peak * 1e12 * UTILISATION) / 3600)

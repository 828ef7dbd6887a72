"""Step 2, second half: SCAN-PhysFed's training step, ours, the authors', and variants of ours."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from train_step import whole_pass

from gpu_steps.ceilings import product_rate
from gpu_steps.setting import PROTOCOLS, Setting
from physfed_ray.cost.operations import Operations
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.store import read_client_data
from physfed_ray.errors import sentence
from physfed_ray.federation.client.training import autocast, build_network, train_client
from physfed_ray.methods.given import ClientInfo, RoundInput
from physfed_ray.methods.scan_physfed import ScanPhysFed, ScanPhysFedSettings
from physfed_ray.methods.scan_physfed_public_code import feature_cosine_loss

AIM = 0.6
"""Share of the measured bf16 rate that a step of ours is to reach."""


@dataclass(frozen=True)
class Way:
    """One way to make the step.

    Attributes:
        bf16: Autocast to bfloat16; else float32.
        channels_last: Images and weights of convolutions; else contiguous.
        fused: Adam as one kernel.
        compiled: The loss by ``torch.compile``.
        graph: The whole step as one CUDA graph.
        authors: A second pass of the whole network for the orthogonal loss.
    """

    bf16: bool = True
    channels_last: bool = True
    fused: bool = True
    compiled: bool = False
    graph: bool = False
    authors: bool = False


WAYS = {
    "ours: bf16, channels-last, fused Adam": Way(),
    "the authors': fp32, two passes": Way(False, False, False, authors=True),
    "ours, with CUDA graph": Way(graph=True),
    "ours, compiled": Way(compiled=True),
    "ours, contiguous": Way(channels_last=False),
    "ours, Adam not fused": Way(fused=False),
    "ours, fp32": Way(bf16=False),
}


def run(setting: Setting) -> None:
    """Run the step."""
    rate = product_rate(setting, "bf16")
    product(setting, rate)
    for name, way in WAYS.items():
        if setting.device == "cpu" and way.graph:
            told = {"result": "needs CUDA"}
        elif setting.clock.left() < setting.size(8, 1):
            told = {"result": "no time left"}
        else:
            told = tried(way, setting, rate)
        setting.record.measured("training step", "ways", way=name, **told)


def tried(way: Way, setting: Setting, rate: float) -> dict[str, Any]:
    """Measure a way, or say why it fails."""
    try:
        return measure(way, setting, rate)
    except Exception as error:
        return {"result": f"failed: {sentence(error)[:200]}"}
    finally:
        torch.cuda.empty_cache()


def measure(way: Way, setting: Setting, rate: float) -> dict[str, Any]:
    """Return seconds, operations, share of the bf16 rate and memory of a way's step."""
    size, count = setting.size(256, 32), setting.size(20, 2)
    with Operations() as operations:
        make_step(replace(way, compiled=False, graph=False), setting)()
    step = make_step(way, setting)
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    call = graphed(step) if way.graph else step
    repeat = setting.size(10, 1)
    for _ in range(3 if way.compiled else 1):  # compiled at the first call
        call()
    setting.wait()
    waits = forbid_waiting(setting, call)
    seconds = setting.seconds(call, repeat)
    peak = torch.cuda.max_memory_allocated() / 2**30 if setting.device == "cuda" else 0.0
    return {
        "seconds": seconds,
        "images_per_s": count / seconds,
        "tflop": operations.total / 1e12,
        "share_of_bf16": operations.total / seconds / rate,
        "gib": peak,
        "waits": waits,
        "result": f"batch {count} of {size} x {size}",
    }


def forbid_waiting(setting: Setting, step: Callable[[], None]) -> str:
    """Make a step during which nothing may wait for the GPU, and say how it went."""
    if setting.device != "cuda":
        return "not known on a CPU"
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return f"waits: {sentence(error)[:120]}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def make_step(way: Way, setting: Setting) -> Callable[[], None]:
    """Return a step on one batch that stays the same."""
    size, device = setting.size(256, 32), setting.device
    task = setting.task(size, setting.size(96, 2), len(PROTOCOLS))
    chosen = ScanPhysFedSettings(variant="public_code" if way.authors else "paper", dropout=0.0)
    method = ScanPhysFed(chosen, task)
    network = method.build(1).to(device).train()
    batch = setting.batch(size, setting.size(20, 2))
    if way.channels_last:
        network.to(memory_format=torch.channels_last)
    else:
        batch = batch.each(lambda name, tensor: tensor.contiguous())
    kind = {"fused": True} if way.fused else {}
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, capturable=way.graph, **kind)
    protocols = torch.stack([torch.from_numpy(PRESETS[n].normalised()) for n in PROTOCOLS])
    protocols = protocols.to(device)
    codes = method.codes(network, protocols)
    assert codes is not None
    client = ClientInfo(0, "c1", PRESETS[PROTOCOLS[0]], len(batch.low))
    extras = {"codes": codes.detach().cpu().numpy()}
    state = method.begin(network, RoundInput(1, client, np.zeros(0, np.float32), extras))

    def ours() -> Tensor:
        loss: Tensor = method.loss(network, batch, state)[0]
        return loss

    def theirs() -> Tensor:
        drawn = torch.arange(len(batch.low), device=device) % len(protocols)
        denoised, own = whole_pass(network, batch, batch.own_g)
        _, other = whole_pass(network, batch, protocols[drawn])
        mse = functional.mse_loss(denoised, batch.full)
        return mse + chosen.tau * feature_cosine_loss(own, other)

    loss_of: Callable[[], Tensor] = theirs if way.authors else ours
    if way.compiled:
        loss_of = torch.compile(loss_of, backend="eager" if setting.dry else "inductor")

    def step() -> None:
        with autocast(device, "bf16" if way.bf16 else "fp32"):
            loss = loss_of()
        adam.zero_grad(set_to_none=not way.graph)
        loss.backward()
        adam.step()

    return step


def graphed(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step that replays what the given one does on the GPU."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def product(setting: Setting, rate: float) -> None:
    """Measure a client's turn as the product makes it: flat vectors, batches out of Arrow."""
    steps, size, batch = setting.size(10, 2), setting.size(256, 32), setting.size(20, 2)
    spec = setting.federation(
        "scan_physfed",
        size=size,
        channels=setting.size(96, 2),
        clients=2,
        slices=batch,
        batch_size=batch,
        local_epochs=steps,
    )
    network, states, optimizer = build_network(spec)
    path = spec.files[0].train
    assert path is not None
    data = read_client_data(path)
    protocols = torch.tensor([client.g for client in spec.clients], device=setting.device)
    codes = spec.method.codes(network, protocols)
    assert codes is not None
    extras = {"codes": codes.detach().cpu().numpy()}
    given = RoundInput(1, spec.clients[0], np.zeros(0, np.float32), extras)
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        result = train_client(spec, network.train(), states, optimizer, data, given, None)
        seconds = result.seconds / max(1, result.steps)
    setting.record.measured(
        "training step",
        "a client's turn by the product",
        what=f"batch {batch} of {size} x {size}, {spec.precision}",
        steps=result.steps,
        seconds_a_step=seconds,
        images_per_s=batch / seconds,
        problem=result.missing or "none",
        aim=f"{AIM:.0%} of {rate / 1e12:.4g} TFLOP/s",
    )
